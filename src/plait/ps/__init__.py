"""`plait ps`: what the tasks of a running process do. It answers (door.py, snapshot.py), we ask and print (ask.py, tree.py)."""
