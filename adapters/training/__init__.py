"""How an adapter is trained: batching, LoRA, the one loop, and the stage that joins them."""
