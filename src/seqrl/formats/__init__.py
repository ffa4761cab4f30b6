"""Files of episodes: one raw record, the rule that cuts it into episodes, readers, writers and inspection."""
