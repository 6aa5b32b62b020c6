"""Wen et al.: intrinsic sparse structures of LSTMs, highway nets and BiDAF."""
