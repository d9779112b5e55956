"""Random messages as the official package of Protobuf writes them, and the JSON that it makes of them. First a line with their types as a
FileDescriptorSet in base64, and one with the same as the text of a .proto file in JSON. Then a line for each message: its bytes in hex, and its JSON."""

import base64
import json
import random
import struct
import sys

from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, json_format, message_factory, struct_pb2, timestamp_pb2, wrappers_pb2

FIELD = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    "double": FIELD.TYPE_DOUBLE, "float": FIELD.TYPE_FLOAT, "int64": FIELD.TYPE_INT64, "uint64": FIELD.TYPE_UINT64,
    "int32": FIELD.TYPE_INT32, "uint32": FIELD.TYPE_UINT32, "sint32": FIELD.TYPE_SINT32, "sint64": FIELD.TYPE_SINT64,
    "fixed32": FIELD.TYPE_FIXED32, "fixed64": FIELD.TYPE_FIXED64, "sfixed32": FIELD.TYPE_SFIXED32,
    "sfixed64": FIELD.TYPE_SFIXED64, "bool": FIELD.TYPE_BOOL, "string": FIELD.TYPE_STRING, "bytes": FIELD.TYPE_BYTES,
}
KNOWN = {
    "at": ".google.protobuf.Timestamp", "took": ".google.protobuf.Duration", "more": ".google.protobuf.Struct",
    "maybe_text": ".google.protobuf.StringValue", "maybe_number": ".google.protobuf.Int64Value",
}


def types():
    file = descriptor_pb2.FileDescriptorProto(name="shop/order.proto", package="shop", syntax="proto3")
    for module in (timestamp_pb2, duration_pb2, struct_pb2, wrappers_pb2):
        file.dependency.append(module.DESCRIPTOR.name)
    sort = file.enum_type.add(name="Sort")
    for number, name in enumerate(("SORT_NONE", "SORT_BOOK", "SORT_SONG")):
        sort.value.add(name=name, number=number)
    message = file.message_type.add(name="Order")
    count = 0

    def field(name, kind, label=FIELD.LABEL_OPTIONAL, type_name=None, **more):
        nonlocal count
        count += 1
        message.field.add(name=name, number=count, type=kind, label=label, type_name=type_name, **more)

    for name, kind in SCALARS.items():
        field(f"a_{name}", kind)
        field(f"many_{name}", kind, FIELD.LABEL_REPEATED)
    field("sort", FIELD.TYPE_ENUM, type_name=".shop.Sort")
    field("sorts", FIELD.TYPE_ENUM, FIELD.LABEL_REPEATED, ".shop.Sort")
    field("inner", FIELD.TYPE_MESSAGE, type_name=".shop.Order")
    field("inners", FIELD.TYPE_MESSAGE, FIELD.LABEL_REPEATED, ".shop.Order")
    for name, type_name in KNOWN.items():
        field(name, FIELD.TYPE_MESSAGE, type_name=type_name)
    message.oneof_decl.add(name="choice")
    field("this", FIELD.TYPE_STRING, oneof_index=0)
    field("that", FIELD.TYPE_SINT64, oneof_index=0)
    message.oneof_decl.add(name="_perhaps")
    field("perhaps", FIELD.TYPE_INT32, oneof_index=1, proto3_optional=True)
    entry = message.nested_type.add(name="PricesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=FIELD.TYPE_STRING, label=FIELD.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=FIELD.TYPE_INT64, label=FIELD.LABEL_OPTIONAL)
    field("prices", FIELD.TYPE_MESSAGE, FIELD.LABEL_REPEATED, ".shop.Order.PricesEntry")
    return file


def written(file):
    """The same types as people write them."""
    names = {number: name for name, number in SCALARS.items()}
    lines = ['syntax = "proto3";', "package shop;", *(f'import "{name}";' for name in file.dependency)]
    lines += ["enum Sort {", *(f"  {value.name} = {value.number};" for value in file.enum_type[0].value), "}", "message Order {"]
    for field in file.message_type[0].field:
        kind = names.get(field.type) or field.type_name
        if field.type_name.endswith("Entry"):
            kind, label = "map<string, int64>", ""
        elif field.label == FIELD.LABEL_REPEATED:
            label = "repeated "
        else:
            label = "optional " if field.proto3_optional else ""
        line = f"  {label}{kind} {field.name} = {field.number};"
        lines.append(line)
    text = "\n".join([*lines, "}", ""])
    this, that = (next(line for line in lines if f" {name} = " in line) for name in ("this", "that"))
    return text.replace(f"{this}\n{that}", f"  oneof choice {{\n{this}\n{that}\n  }}")


def whole(chance, low, high):
    return chance.choice([low, high, 0, 1, chance.randint(low, high)])


def scalar(chance, name):
    if name == "double":
        return chance.choice([0.0, 1.5, -2.25e-300, float("nan"), float("inf"), float("-inf"), chance.uniform(-1e9, 1e9)])
    if name == "float":
        return struct.unpack("f", struct.pack("f", chance.choice([0.0, 0.1, -3.5, chance.uniform(-1e6, 1e6)])))[0]
    if name == "bool":
        return chance.random() < 0.5
    if name == "string":
        return "".join(chance.choice("aü☂\"\\\n 0") for _ in range(chance.randint(0, 6)))
    if name == "bytes":
        return chance.randbytes(chance.randint(0, 6))
    bits = 64 if "64" in name else 32
    return whole(chance, 0, 2**bits - 1) if name.startswith(("u", "fixed")) else whole(chance, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def fill(chance, order, depth=0):
    for name in SCALARS:
        if chance.random() < 0.3:
            setattr(order, f"a_{name}", scalar(chance, name))
        if chance.random() < 0.15:
            getattr(order, f"many_{name}").extend(scalar(chance, name) for _ in range(chance.randint(1, 4)))
    if chance.random() < 0.3:
        # A number that has no name yet, too.
        order.sort = chance.choice([1, 2, 7])
        order.sorts.extend([0, 2, 9])
    if chance.random() < 0.3:
        order.at.FromMilliseconds(chance.randint(-(10**12), 4 * 10**12))
        order.took.FromMicroseconds(chance.randint(-(10**9), 10**9))
    if chance.random() < 0.2:
        order.more.update({"a": [1.5, None, {"b": "ü"}], "c": True})
        order.maybe_text.value = scalar(chance, "string")
        order.maybe_number.value = scalar(chance, "int64")
    if chance.random() < 0.3:
        order.prices[scalar(chance, "string")] = scalar(chance, "int64")
    choice = chance.randint(0, 3)
    if choice == 1:
        order.this = ""
    elif choice == 2:
        order.that = -5
    if chance.random() < 0.3:
        order.perhaps = 0
    if depth < 3 and chance.random() < 0.5:
        fill(chance, order.inner, depth + 1)
        fill(chance, order.inners.add(), depth + 1)
        order.inners.add()


def main(seed, count):
    chance = random.Random(seed)
    file = types()
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    order_type = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Order"))
    known = descriptor_pb2.FileDescriptorSet()
    for module in (timestamp_pb2, duration_pb2, struct_pb2, wrappers_pb2):
        module.DESCRIPTOR.CopyToProto(known.file.add())
    known.file.append(file)
    print(base64.b64encode(known.SerializeToString()).decode())
    print(json.dumps(written(file)))
    for _ in range(count):
        order = order_type()
        fill(chance, order)
        text = json_format.MessageToDict(order, always_print_fields_with_no_presence=True)
        print(order.SerializeToString().hex(), json.dumps(text), sep="\t")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
