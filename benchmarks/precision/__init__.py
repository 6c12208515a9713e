"""What half precision costs, tensor by tensor and stage by stage."""
