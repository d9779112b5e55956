import os

print("these are the last words")
os._exit(7)
