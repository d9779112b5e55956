"""What DAG files use beside operators."""
