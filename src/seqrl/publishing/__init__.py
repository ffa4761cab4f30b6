"""Models for others: folders that can be published, their cards, and the models that come with seqrl."""
