"""What operators and sensors derive from."""
