"""Take it out: exact compaction, safe checkpoints, export."""
