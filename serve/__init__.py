"""An HTTP server for opened bundles: the project's own routes, the Open Inference Protocol, metrics, a page."""
