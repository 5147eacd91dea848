import Glibc

/// A secret that a process leaves for programs of the same user on the same machine, in a file that nobody else reads.
/// It lies in a folder that nobody else writes: `$XDG_RUNTIME_DIR`, `/run/sluice` (systemd's `RuntimeDirectory=`), or one
/// below `/tmp` that belongs to the user.
///
/// Processes that go by the same file hold a shared lock on it (flock(2)), which ends with them however they end: the last
/// one to leave takes the file along.
public final class SecretFile: Sendable {
    public let text: String
    private let path: String
    private let file: Descriptor

    private init(_ text: String, _ path: String, _ file: consuming Descriptor) {
        self.text = text
        self.path = path
        self.file = file
    }

    /// Writes it; `nil` where no folder would keep it.
    public static func write(_ text: String, name: String) -> SecretFile? {
        for folder in folders() where prepare(folder) {
            let path = "\(folder)/\(name)"
            _ = unsafe unlink(path)
            // A link or file that somebody has put there meanwhile is not followed or taken over.
            let raw = unsafe Glibc.open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
            guard raw >= 0 else { continue }
            let file = Descriptor(adopting: raw)
            _ = flock(file.raw, LOCK_SH | LOCK_NB)
            do throws(SystemError) {
                try OutputFile.write(file, Array(text.utf8).span)
                return SecretFile(text, path, file)
            } catch {
                _ = unsafe unlink(path)
            }
        }
        return nil
    }

    /// What a process of this user has written before, if nobody else can have put it there.
    public static func share(name: String) -> SecretFile? {
        for folder in folders() where prepare(folder) {
            let path = "\(folder)/\(name)"
            let file = open(path)
            // Whoever holds it alone is about to remove it.
            guard flock(file.raw, LOCK_SH | LOCK_NB) == 0, let (text, status) = contents(of: file),
                status.st_uid == geteuid(), status.st_nlink == 1, status.st_mode & S_IFMT == S_IFREG,
                status.st_mode & 0o077 == 0, isAt(path, status)
            else { continue }
            return SecretFile(text, path, file)
        }
        return nil
    }

    /// This process goes by it no more. Nothing happens the second time.
    public func leave() {
        // Another process that goes by it has its lock; another file in its place is not ours.
        if flock(file.raw, LOCK_EX | LOCK_NB) == 0, let status = Self.status(file), Self.isAt(path, status) {
            _ = unsafe unlink(path)
        }
        file.closeEarly()
    }

    /// Reads it, if it is the user's own or root's.
    public static func read(name: String) -> String? {
        for folder in folders() {
            guard let (text, status) = contents(of: open("\(folder)/\(name)")),
                status.st_uid == geteuid() || status.st_uid == 0
            else { continue }
            return text
        }
        return nil
    }

    private static func open(_ path: String) -> Descriptor {
        // A pipe without a writer would wait for one.
        Descriptor(adopting: unsafe Glibc.open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC))
    }

    private static func status(_ file: borrowing Descriptor) -> stat? {
        var status = stat()
        return unsafe fstat(file.raw, &status) == 0 ? status : nil
    }

    /// Whether this file is still the one of that name.
    private static func isAt(_ path: String, _ status: stat) -> Bool {
        var there = stat()
        return unsafe lstat(path, &there) == 0 && there.st_ino == status.st_ino && there.st_dev == status.st_dev
    }

    private static func contents(of file: borrowing Descriptor) -> (text: String, status: stat)? {
        guard let status = status(file) else { return nil }
        var bytes = [UInt8](repeating: 0, count: 4_096)
        let n = retryingInterrupts { unsafe Glibc.read(file.raw, &bytes, bytes.count) }
        return n > 0 ? (String(decoding: bytes[..<n], as: UTF8.self), status) : nil
    }

    private static func folders() -> [String] {
        var folders: [String] = []
        if let own = unsafe getenv("XDG_RUNTIME_DIR") {
            let path = unsafe String(cString: own)
            if path.hasPrefix("/") { folders.append(path) }
        }
        return folders + ["/run/sluice", "/tmp/sluice-\(geteuid())"]
    }

    /// Whether the folder is there, is no link, and only its owner, who is us or root, writes there.
    private static func prepare(_ folder: String) -> Bool {
        if folder.hasPrefix("/tmp/") { _ = unsafe mkdir(folder, 0o700) }
        var status = stat()
        guard unsafe lstat(folder, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else { return false }
        return status.st_uid == geteuid() && status.st_mode & 0o022 == 0
    }
}
