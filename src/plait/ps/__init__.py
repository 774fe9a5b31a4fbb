"""`plait ps`: what the tasks of a running process do. It answers (server.py, snapshot.py), client.py asks, tree.py prints."""
