"""Episodes in environments, their statistics, and the tables made of them."""
