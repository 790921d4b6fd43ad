"""Owns training: losses, optimisers and the run itself. Nothing else imports lightning."""
