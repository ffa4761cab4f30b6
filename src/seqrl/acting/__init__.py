"""Acting: a strategy and the policy that follows it."""
