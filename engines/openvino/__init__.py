"""The stages of a bundle on OpenVINO's CPU plugin."""
