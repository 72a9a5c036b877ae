"""What native clients and replicas share: the answers to commands, and the messages on their connections.

Start reading with `answers`, then `messages`.
"""
