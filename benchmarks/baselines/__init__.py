"""What a deployment is compared with."""
