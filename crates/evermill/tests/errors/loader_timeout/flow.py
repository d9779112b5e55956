import os
import time

while not os.path.exists("ready"): time.sleep(0.1)
