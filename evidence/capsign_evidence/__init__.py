"""Pure evidence: leaves, the Merkle tree, checkpoints, proofs and receipts."""
