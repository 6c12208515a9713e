"""Stand-ins and data that tests share."""
