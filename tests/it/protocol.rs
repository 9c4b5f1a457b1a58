//! Raw packets: what no stock client sends.

use std::sync::Arc;

use russh_sftp::client::SftpSession;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use crate::support::instance::{IN, PASSWORD, Setup, USER};

/// Opens the subsystem and sends bytes; says how it ended.
const RAW: &str = "import struct, socket\n\
    def raw(payload, init=True):\n\
    \x20   t = transport(); c = t.open_session(); c.invoke_subsystem('sftp'); c.settimeout(8)\n\
    \x20   try:\n\
    \x20       if init:\n\
    \x20           c.sendall(struct.pack('>IBI', 5, 1, 3)); c.recv(65536)\n\
    \x20       c.sendall(payload)\n\
    \x20       got = b''\n\
    \x20       while True:\n\
    \x20           piece = c.recv(65536)\n\
    \x20           if not piece: return ('closed', got)\n\
    \x20           got += piece\n\
    \x20   except socket.timeout: return ('timeout', b'')\n\
    \x20   except Exception as e: return ('closed ' + type(e).__name__, b'')\n\
    def s(b): return struct.pack('>I', len(b)) + b\n\
    def p(kind, body): return struct.pack('>IB', len(body) + 1, kind) + body\n";

#[test]
fn malformed_packets_cut_the_connection_and_are_logged_once() {
    let portal = Setup::new().start("malformed");
    let script = format!(
        "{RAW}\
         print('long', raw(struct.pack('>I', 300000000) + b'x' * 100000))\n\
         print('zero', raw(struct.pack('>I', 0) + b'x' * 10))\n\
         print('cut', raw(p(3, struct.pack('>I', 1) + struct.pack('>I', 1000) + b'abc')))\n\
         print('write', raw(p(6, struct.pack('>I', 1) + s(b'1234') + struct.pack('>QI', 0, 5000) + b'abc')))\n\
         print('early', raw(p(17, struct.pack('>I', 1) + s(b'/')), init=False))\n\
         print('twice', raw(struct.pack('>IBI', 5, 1, 3)))\n\
         print('junk', raw(bytes(range(256)) * 400))\n\
         portal().stat('/'); print('alive')"
    );
    let said = portal.paramiko(&script).well();
    for what in ["long", "zero", "cut", "write", "early", "twice", "junk"] {
        let line =
            said.out.lines().find(|l| l.starts_with(what)).unwrap_or_else(|| panic!("{said:?}"));
        assert!(line.contains("closed") && !line.contains("timeout"), "{line}");
    }
    assert!(said.out.contains("alive"));
    assert_eq!(portal.events("protocol.error").len(), 7, "each is told once");
}

#[test]
fn unknown_requests_and_extensions_are_answered_and_the_session_goes_on() {
    let portal = Setup::new().start("unknown");
    let script = format!(
        "{RAW}\
         def ask(payload):\n\
         \x20   t = transport(); c = t.open_session(); c.invoke_subsystem('sftp'); c.settimeout(8)\n\
         \x20   c.sendall(struct.pack('>IBI', 5, 1, 3)); v = c.recv(65536)\n\
         \x20   c.sendall(payload); r = c.recv(65536); return v, r\n\
         for name in [b'posix-rename@openssh.com', b'statvfs@openssh.com', b'fsync@openssh.com', b'limits@openssh.com']:\n\
         \x20   assert name in ask(p(17, struct.pack('>I', 1) + s(b'/')))[0], name\n\
         v, r = ask(p(99, struct.pack('>I', 7)) ); print('unknown', struct.unpack('>I', r[9:13])[0], struct.unpack('>I', r[5:9])[0])\n\
         v, r = ask(p(200, struct.pack('>I', 8) + s(b'evil@example') + b'xx')); print('extension', struct.unpack('>I', r[9:13])[0])\n\
         v, r = ask(p(200, struct.pack('>I', 9) + s(b'hardlink@openssh.com') + s(b'/a') + s(b'/b'))); print('hardlink', struct.unpack('>I', r[9:13])[0])\n\
         v, r = ask(p(200, struct.pack('>I', 9) + s(b'limits@openssh.com'))); print('limits', struct.unpack('>QQQQ', r[9:41]))\n\
         v, r = ask(p(4, struct.pack('>I', 5) + s(b'nope'))); print('handle', struct.unpack('>I', r[9:13])[0])\n\
         v, r = ask(p(6, struct.pack('>I', 5) + s(b'nope') + struct.pack('>QI', 0, 3) + b'abc')); print('write', struct.unpack('>I', r[9:13])[0])"
    );
    let said = portal.paramiko(&script).well();
    for line in [
        "unknown 8 7",
        "extension 8",
        "hardlink 8",
        "limits (263168, 261120, 261120, 64)",
        "handle 4",
        "write 4",
    ] {
        assert!(said.out.contains(line), "{line}: {said:?}");
    }
}

#[test]
fn a_client_that_sends_requests_and_reads_nothing_is_cut_off() {
    let portal = Setup::new().without_scanner().set("hotfolder", "root", "\"\"").start("flood");
    std::fs::write(portal.file("a.bin"), crate::support::noise(4_000_000, 5)).unwrap();
    portal.sftp(&format!("put a.bin {IN}/a.bin\n")).well();
    let before = portal.memory("VmHWM");
    let script = format!(
        "{RAW}\
         t = transport(); c = t.open_session(window_size=2097152); c.invoke_subsystem('sftp'); c.settimeout(10)\n\
         c.sendall(struct.pack('>IBI', 5, 1, 3)); c.recv(65536)\n\
         c.sendall(p(3, struct.pack('>I', 1) + s((IN + '/a.bin').encode()) + struct.pack('>II', 1, 0))); r = c.recv(65536)\n\
         handle = r[13:17]\n\
         read = p(5, struct.pack('>I', 2) + s(handle) + struct.pack('>QI', 0, 261120))\n\
         sent = 0\n\
         try:\n\
         \x20   while sent < 64 << 20: c.sendall(read * 1000); sent += len(read) * 1000\n\
         \x20   print('never stopped')\n\
         except Exception as e: print('stopped after', sent, type(e).__name__)\n\
         os._exit(0)"
    );
    let said = portal.paramiko(&script).well();
    assert!(said.out.contains("stopped after"), "{said:?}");
    let grown = portal.memory("VmHWM") - before;
    assert!(grown < 32 * 1024, "{grown} KiB of memory for a client that reads nothing");
    portal.sftp("ls\n").well();
}

#[test]
fn only_modern_algorithms_are_offered() {
    let portal = Setup::new().without_scanner().start("algorithms");
    let try_with = |option: &str| portal.sftp_with(&[option], "ls\n").ok;
    for good in [
        "Ciphers=aes128-gcm@openssh.com",
        "Ciphers=aes256-ctr",
        "KexAlgorithms=curve25519-sha256",
        "MACs=hmac-sha2-256-etm@openssh.com",
    ] {
        assert!(try_with(&format!("-o{good}")), "{good}");
    }
    for bad in [
        "Ciphers=chacha20-poly1305@openssh.com",
        "Ciphers=aes128-cbc",
        "KexAlgorithms=diffie-hellman-group14-sha256",
        "KexAlgorithms=ecdh-sha2-nistp256",
        "HostKeyAlgorithms=ssh-rsa",
    ] {
        assert!(!try_with(&format!("-o{bad}")), "{bad}");
    }
    let plain = portal.sftp_with(&["-oMACs=hmac-sha2-256", "-oCiphers=aes256-ctr"], "ls\n");
    assert!(!plain.ok, "plain MACs only with legacy_algorithms");
    let legacy =
        Setup::new().without_scanner().set("sftp", "legacy_algorithms", "true").start("legacy");
    legacy
        .sftp_with(
            &[
                "-oKexAlgorithms=diffie-hellman-group16-sha512",
                "-oMACs=hmac-sha2-256",
                "-oCiphers=aes256-ctr",
            ],
            "ls\n",
        )
        .well();
}

#[test]
fn a_read_is_short_only_at_the_end_whatever_the_page_cache_holds() {
    let portal = Setup::new().without_scanner().set("hotfolder", "root", "\"\"").start("shortread");
    std::fs::write(portal.file("a.bin"), crate::support::noise(3_000_000, 5)).unwrap();
    portal.sftp(&format!("put a.bin {IN}/a.bin\n")).well();
    let script = format!(
        "{RAW}\
         import glob\n\
         vault = [f for f in glob.glob('data/vault/*/*') if not f.endswith('.json')][0]\n\
         t = transport(); c = t.open_session(); c.invoke_subsystem('sftp'); c.settimeout(10)\n\
         c.sendall(struct.pack('>IBI', 5, 1, 3)); c.recv(65536)\n\
         c.sendall(p(3, struct.pack('>I', 1) + s((IN + '/a.bin').encode()) + struct.pack('>II', 1, 0))); handle = c.recv(65536)[13:17]\n\
         source = open('a.bin', 'rb').read()\n\
         def exactly(n):\n\
         \x20   got = b''\n\
         \x20   while len(got) < n: got += c.recv(n - len(got))\n\
         \x20   return got\n\
         fd = os.open(vault, os.O_RDONLY); os.fsync(fd)\n\
         for at in range(0, len(source), 100000):\n\
         \x20   os.posix_fadvise(fd, at + 65536, 131072, os.POSIX_FADV_DONTNEED)\n\
         \x20   c.sendall(p(5, struct.pack('>I', 2) + s(handle) + struct.pack('>QI', at, 261120)))\n\
         \x20   size, kind = struct.unpack('>IB', exactly(5)); body = exactly(size - 1)\n\
         \x20   assert kind == 103 and body[8:] == source[at:at + 261120], (at, kind, len(body) - 8)\n\
         print('all whole')"
    );
    assert!(portal.paramiko(&script).well().out.contains("all whole"));
}

/// Takes any host key: what is tested is the server.
struct Trusting;

impl russh::client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _key: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

#[test]
fn an_independent_client_library_reads_what_it_wrote() {
    let portal = Setup::new().start("russh-sftp");
    portal.set_password(PASSWORD);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let content = crate::support::noise(1_500_000, 77);
    let back = runtime.block_on(async {
        let config = Arc::new(russh::client::Config::default());
        let mut ssh =
            russh::client::connect(config, ("127.0.0.1", portal.port), Trusting).await.unwrap();
        assert!(ssh.authenticate_password(USER, PASSWORD).await.unwrap().success());
        let channel = ssh.channel_open_session().await.unwrap();
        channel.request_subsystem(true, "sftp").await.unwrap();
        let sftp = SftpSession::new(channel.into_stream()).await.unwrap();
        let path = format!("{IN}/russh.bin");
        let mut file = sftp.create(&path).await.unwrap();
        file.write_all(&content).await.unwrap();
        file.shutdown().await.unwrap();
        let names: Vec<String> =
            sftp.read_dir(IN).await.unwrap().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["russh.bin"]);
        assert_eq!(sftp.metadata(&path).await.unwrap().size, Some(1_500_000));
        let mut file = sftp.open(&path).await.unwrap();
        file.seek(std::io::SeekFrom::Start(1_000_000)).await.unwrap();
        let mut back = Vec::new();
        file.read_to_end(&mut back).await.unwrap();
        back
    });
    assert_eq!(back, &content[1_000_000..]);
    assert_eq!(portal.until_delivered("russh.bin"), content);
}
