import json

limits = json.loads("{}")
print(limits["orders"])
