"""Small files that become large: bombs.py FOLDER makes nested.zip, flat.zip, stream.pdf and zeros.gz there."""
import gzip
import io
import pathlib
import sys
import zipfile
import zlib

folder = pathlib.Path(sys.argv[1])
zeros = bytes(1 << 20)


def zipped(name, mebibytes):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as z:
        # In one piece: written in pieces it would become Zip64, which clamd passes over.
        z.writestr(name, zeros * mebibytes)
    return out.getvalue()


def copies(inner, count):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for n in range(count):
            # Each a little different: clamd looks at equal ones once.
            z.writestr(f"{n}.zip", inner + str(n).encode())
    return out.getvalue()


# Sixteen in sixteen in sixteen … of 120 MiB: 2 PiB.
nested = zipped("0.bin", 120)
for _ in range(6):
    nested = copies(nested, 16)
(folder / "nested.zip").write_bytes(nested)
(folder / "flat.zip").write_bytes(zipped("gross.bin", 300))
with gzip.open(folder / "zeros.gz", "wb", 9) as f:
    for _ in range(400):
        f.write(zeros)
packer = zlib.compressobj(9)
stream = b"".join(packer.compress(zeros) for _ in range(400)) + packer.flush()
pdf = b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n2 0 obj\n<< /Type /Pages /Kids [3 0 R] /Count 1 >>\n" \
      b"endobj\n3 0 obj\n<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] /Contents 4 0 R >>\nendobj\n4 0 obj\n" \
      b"<< /Filter /FlateDecode /Length " + str(len(stream)).encode() + b" >>\nstream\n" + stream + \
      b"\nendstream\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n"
(folder / "stream.pdf").write_bytes(pdf)
