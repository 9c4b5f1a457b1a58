"""Random operations of a customer against a model of what must be there. Reads the settings that paramiko.rs puts before.

Prints as JSON: accepted (content by every version that was accepted), present (path to content at the end).
"""
import json
import random


def play(seed, steps):
    rng = random.Random(seed)
    s = portal()
    model, accepted, n = {}, {}, 0
    folders = ["", "Ordner/", "Ordner/tief/"]
    for f in folders[1:]:
        s.mkdir(IN + "/" + f.rstrip("/"))
    names = ["a.pdf", "b.pdf", "Ä c.tif", "d"]

    def anything():
        return rng.choice(folders) + rng.choice(names)

    def put(path, content, mode="wb"):
        with s.open(IN + "/" + path, mode) as f:
            f.write(content)

    for _ in range(steps):
        n += 1
        kind = rng.choice(["put", "put", "put", "append", "rename", "remove", "abort", "seek"])
        path = anything()
        token = f"{seed}-{n}-{rng.random()} ".encode() * rng.randint(1, 400)
        if kind == "put":
            put(path, token)
            model[path] = token
            accepted.setdefault(path, []).append(token)
        elif kind == "append" and path in model:
            put(path, token, "ab")
            model[path] += token
            accepted[path].append(model[path])
        elif kind == "seek":
            # Backwards, in pieces.
            size = len(token)
            with s.open(IN + "/" + path, "wb") as f:
                for at in range(((size - 1) // 1000) * 1000, -1, -1000):
                    f.seek(at)
                    f.write(token[at:at + 1000])
            model[path] = token
            accepted.setdefault(path, []).append(token)
        elif kind == "rename" and path in model:
            target = anything()
            if target == path:
                continue
            # Onto another one it makes a new version of that one.
            s.rename(IN + "/" + path, IN + "/" + target)
            model[target] = model.pop(path)
            accepted.setdefault(target, []).append(model[target])
        elif kind == "remove":
            try:
                s.remove(IN + "/" + path)
                assert path in model, path
                del model[path]
            except OSError:
                assert path not in model, path
        elif kind == "abort" and path not in model:
            # A connection that is lost in the middle completes nothing.
            other = portal()
            f = other.open(IN + "/" + path, "wb")
            f.set_pipelined(False)
            f.write(token)
            other.get_channel().get_transport().close()
            time.sleep(0.3)
            # It goes on with the whole.
            put(path, token)
            model[path] = token
            accepted.setdefault(path, []).append(token)
        if n % 20 == 0 or n == steps:
            seen = {}
            for folder in folders:
                for a in s.listdir_attr(IN + "/" + folder):
                    if not (a.st_mode or 0) & 0o040000:
                        seen[folder + a.filename] = a.st_size
            assert seen == {k: len(v) for k, v in model.items()}, (n, seen, {k: len(v) for k, v in model.items()})
            for path, content in model.items():
                with s.open(IN + "/" + path) as f:
                    assert f.read() == content, path
    digest = lambda b: hashlib.sha256(b).hexdigest()
    print(json.dumps({"accepted": {k: [digest(v) for v in vs] for k, vs in accepted.items()},
                      "present": {k: digest(v) for k, v in model.items()}}))
