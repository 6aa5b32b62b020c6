"""What each kind of torch operation does to channels."""
