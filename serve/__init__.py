"""An HTTP server for opened bundles: JSON, the Open Inference Protocol, metrics and a page."""
