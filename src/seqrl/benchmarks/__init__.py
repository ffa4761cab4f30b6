"""How fast planning, training and loading are, beside what they could be: `seqrl bench`."""
