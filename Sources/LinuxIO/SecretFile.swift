import Glibc

/// A secret that a process leaves for programs of the same user on the same machine, in a file that nobody else reads.
/// It lies in a folder that nobody else writes: `$XDG_RUNTIME_DIR`, `/run/sluice` (systemd's `RuntimeDirectory=`), or one
/// below `/tmp` that belongs to the user.
public enum SecretFile {
    /// Writes it; returns the path, or `nil` where no folder would keep it.
    public static func write(_ text: String, name: String) -> String? {
        for folder in folders() where prepare(folder) {
            let path = "\(folder)/\(name)"
            _ = unsafe unlink(path)
            // A link or file that somebody has put there meanwhile is not followed or taken over.
            let raw = unsafe open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
            guard raw >= 0 else { continue }
            let file = Descriptor(adopting: raw)
            do throws(SystemError) {
                try OutputFile.write(file, Array(text.utf8).span)
                return path
            } catch {
                _ = unsafe unlink(path)
            }
        }
        return nil
    }

    /// What a process of this user has written before, if nobody else can have put it there.
    public static func own(name: String) -> (text: String, path: String)? {
        for folder in folders() where prepare(folder) {
            let path = "\(folder)/\(name)"
            guard let (text, status) = contents(of: path), status.st_uid == geteuid(), status.st_nlink == 1,
                status.st_mode & S_IFMT == S_IFREG, status.st_mode & 0o077 == 0
            else { continue }
            return (text, path)
        }
        return nil
    }

    /// Reads it, if it is the user's own or root's.
    public static func read(name: String) -> String? {
        for folder in folders() {
            guard let (text, status) = contents(of: "\(folder)/\(name)"),
                status.st_uid == geteuid() || status.st_uid == 0
            else { continue }
            return text
        }
        return nil
    }

    /// Removes it where it holds this text still: another process may have written its own meanwhile.
    public static func remove(_ text: String, path: String) {
        if contents(of: path)?.text == text { _ = unsafe unlink(path) }
    }

    private static func contents(of path: String) -> (text: String, status: stat)? {
        // A pipe without a writer would wait for one.
        let raw = unsafe open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
        guard raw >= 0 else { return nil }
        let file = Descriptor(adopting: raw)
        var status = stat()
        guard unsafe fstat(file.raw, &status) == 0 else { return nil }
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
