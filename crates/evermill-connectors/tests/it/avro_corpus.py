"""Random Avro schemas and values, written by fastavro: one JSON object a line, with the schema, the bytes as
hexadecimal digits, and the JSON that the bytes have to become. Arguments: seed, how many."""

import base64
import datetime
import decimal
import io
import json
import random
import struct
import sys
import uuid

import fastavro

decimal.getcontext().prec = 400
EPOCH = datetime.datetime(1970, 1, 1)
UTC = datetime.timezone.utc
TEXTS = ["", "a", "ü ☂ 😀", 'quote " and \\ back', "line\nbreak\ttab \x00 nul", "/~"]


def shortest(number):
    """The shortest number that is this float."""
    for digits in range(1, 18):
        text = f"{number:.{digits}g}"
        if struct.pack("<f", float(text)) == struct.pack("<f", number):
            return float(text)
    return number


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.names = 0

    def name(self):
        self.names += 1
        return f"N{self.names}"

    def whole(self, bits):
        edge = [0, 1, -1, 63, -64, 64, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))]
        return self.random.choice(edge + [self.random.randrange(-(2 ** (bits - 1)), 2 ** (bits - 1))])

    def text(self):
        return self.random.choice(TEXTS + ["x" * self.random.randrange(200)])

    def make(self, depth):
        """A schema, a value of it for fastavro, and its JSON."""
        plain = [
            self.null, self.boolean, self.int, self.long, self.float, self.double, self.bytes, self.string,
            self.fixed, self.enum, self.date, self.time, self.timestamp, self.local, self.decimal, self.uuid,
        ]  # fmt: skip
        nested = [self.record, self.array, self.map, self.optional]
        return self.random.choice(plain if depth == 0 else plain + nested * 3)(depth)

    def null(self, _):
        return "null", None, None

    def boolean(self, _):
        value = self.random.random() < 0.5
        return "boolean", value, value

    def int(self, _):
        value = self.whole(32)
        return "int", value, value

    def long(self, _):
        value = self.whole(64)
        return "long", value, value

    def float(self, _):
        special = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
        if self.random.random() < 0.2:
            word = self.random.choice(list(special))
            return "float", special[word], word
        value = struct.unpack("<f", struct.pack("<f", self.random.uniform(-1e6, 1e6)))[0]
        return "float", value, shortest(value)

    def double(self, _):
        value = self.random.choice([0.0, 0.1, -2.5e-300, 1.7e308, self.random.uniform(-1e9, 1e9)])
        return "double", value, value

    def bytes(self, _):
        value = self.random.randbytes(self.random.randrange(20))
        return "bytes", value, base64.b64encode(value).decode()

    def string(self, _):
        value = self.text()
        return "string", value, value

    def fixed(self, _):
        size = self.random.randrange(1, 9)
        value = self.random.randbytes(size)
        schema = {"type": "fixed", "name": self.name(), "size": size, "namespace": "some.space"}
        return schema, value, base64.b64encode(value).decode()

    def enum(self, _):
        words = ["RED", "GREEN", "BLUE"][: self.random.randrange(1, 4)]
        value = self.random.choice(words)
        return {"type": "enum", "name": self.name(), "symbols": words}, value, value

    def date(self, _):
        value = datetime.date.fromordinal(self.random.randrange(1, datetime.date.max.toordinal()))
        return {"type": "int", "logicalType": "date"}, value, value.isoformat()

    def time(self, _):
        digits = self.random.choice([3, 6])
        micros = self.random.randrange(86_400_000_000) // 10 ** (6 - digits) * 10 ** (6 - digits)
        value = (EPOCH + datetime.timedelta(microseconds=micros)).time()
        schema = {3: {"type": "int", "logicalType": "time-millis"}, 6: {"type": "long", "logicalType": "time-micros"}}
        return schema[digits], value, value.isoformat({3: "milliseconds", 6: "microseconds"}[digits])

    def moment(self):
        digits = self.random.choice([3, 6])
        micros = self.random.randrange(-(10**16), 10**17) // 10 ** (6 - digits) * 10 ** (6 - digits)
        value = EPOCH + datetime.timedelta(microseconds=micros)
        return {3: "millis", 6: "micros"}[digits], value, value.isoformat("T", {3: "milliseconds", 6: "microseconds"}[digits])

    def timestamp(self, _):
        word, value, text = self.moment()
        return {"type": "long", "logicalType": f"timestamp-{word}"}, value.replace(tzinfo=UTC), text + "Z"

    def local(self, _):
        word, value, text = self.moment()
        return {"type": "long", "logicalType": f"local-timestamp-{word}"}, value, text

    def decimal(self, _):
        precision = self.random.randrange(1, 60)
        scale = self.random.randrange(precision + 1)
        unscaled = self.random.randrange(-(10**precision) + 1, 10**precision)
        value = decimal.Decimal(unscaled).scaleb(-scale)
        schema = {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
        if self.random.random() < 0.3:
            schema = {**schema, "type": "fixed", "name": self.name(), "size": 26}
        return schema, value, f"{value:.{scale}f}" if unscaled else f"{decimal.Decimal(0):.{scale}f}"

    def uuid(self, _):
        value = uuid.UUID(int=self.random.getrandbits(128))
        return {"type": "string", "logicalType": "uuid"}, value, str(value)

    def record(self, depth):
        fields, value, wanted = [], {}, {}
        for number in range(self.random.randrange(4)):
            name = f"f{number}"
            schema, value[name], wanted[name] = self.make(depth - 1)
            fields.append({"name": name, "type": schema})
        return {"type": "record", "name": self.name(), "fields": fields}, value, wanted

    def several(self, depth):
        """One schema and some values of it: a value, made again with the same random choices for the schema."""
        schema, value, wanted = self.make(depth)
        count = self.random.choice([0, 1, 3])
        return schema, [value] * count, [wanted] * count

    def array(self, depth):
        schema, values, wanted = self.several(depth - 1)
        return {"type": "array", "items": schema}, values, wanted

    def map(self, depth):
        schema, values, wanted = self.several(depth - 1)
        names = [f"{number} {self.text()}" for number in range(len(values))]
        return {"type": "map", "values": schema}, dict(zip(names, values)), dict(zip(names, wanted))

    def optional(self, depth):
        schema, value, wanted = self.make(depth - 1)
        if schema == "null" or isinstance(schema, list):
            return schema, value, wanted
        return (["null", schema], None, None) if self.random.random() < 0.3 else (["null", schema], value, wanted)


def main():
    maker = Maker(int(sys.argv[1]))
    for _ in range(int(sys.argv[2])):
        schema, value, wanted = maker.make(4)
        written = io.BytesIO()
        fastavro.schemaless_writer(written, fastavro.parse_schema(schema), value)
        print(json.dumps({"schema": schema, "hex": written.getvalue().hex(), "json": wanted}))


main()
