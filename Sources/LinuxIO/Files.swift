import Glibc

/// Files that are only written to: logs.
public enum OutputFile {
    public static func standardOutput() throws(SystemError) -> Descriptor { try duplicate(1) }
    public static func standardError() throws(SystemError) -> Descriptor { try duplicate(2) }

    /// One of the first three that is closed would be given to the next file or connection that is opened, and take what
    /// is written to it: it becomes `/dev/null`. Call first in the program.
    public static func fillStandard() {
        for number in Int32(0)...2 where fcntl(number, F_GETFD) < 0 { _ = unsafe open("/dev/null", O_RDWR) }
    }

    private static func duplicate(_ number: Int32) throws(SystemError) -> Descriptor {
        let raw = fcntl(number, F_DUPFD_CLOEXEC, 3)
        guard raw >= 0 else { throw .last("dup") }
        return Descriptor(adopting: raw)
    }

    /// Opens a file for appending, made if it is missing. Does not wait: a named pipe that nobody reads is opened for both
    /// directions, which the kernel always grants (fifo(7)), and keeps what is written for the reader to come.
    public static func append(path: String) throws(SystemError) -> Descriptor {
        try append(path: path, O_CREAT)
    }

    private static func append(path: String, _ creating: Int32) throws(SystemError) -> Descriptor {
        let flags = O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY
        var raw = unsafe open(path, O_WRONLY | flags | creating, 0o644)
        if raw < 0, errno == ENXIO, FileKind.of(path) == .pipe { raw = unsafe open(path, O_RDWR | flags) }
        guard raw >= 0 else { throw .last("open") }
        return Descriptor(adopting: raw)
    }

    /// Finds out whether `append` would succeed, and leaves everything as it is.
    public static func checkAppend(path: String) throws(SystemError) {
        do throws(SystemError) {
            _ = try append(path: path, 0)
        } catch  where error.isMissing {
            let end = path.lastIndex(of: "/") ?? path.startIndex
            let folder = end == path.startIndex ? "/" : String(path[..<end])
            guard unsafe access(folder, W_OK | X_OK) == 0 else { throw .last("access") }
        }
    }

    /// Writes all bytes, waiting where the file is a slow pipe. Never call it on a loop.
    public static func write(_ file: borrowing Descriptor, _ bytes: Span<UInt8>) throws(SystemError) {
        try write(file.raw, bytes)
    }

    /// Writes to standard error, without a descriptor of its own: what is to be said may be that there is none left.
    public static func writeError(_ bytes: Span<UInt8>) throws(SystemError) { try write(2, bytes) }

    private static func write(_ raw: Int32, _ bytes: Span<UInt8>) throws(SystemError) {
        let (_, error) = writePrefix(raw, bytes)
        if let error { throw error }
    }

    /// Writes as many bytes as can be written; says how many, and what stood in the way of the rest. Never call it on a
    /// loop.
    public static func writePrefix(
        _ file: borrowing Descriptor, _ bytes: Span<UInt8>
    ) -> (written: Int, error: SystemError?) { writePrefix(file.raw, bytes) }

    private static func writePrefix(_ raw: Int32, _ bytes: Span<UInt8>) -> (written: Int, error: SystemError?) {
        var offset = 0
        while offset < bytes.count {
            let rest = bytes.extracting(offset..<bytes.count)
            let n = unsafe rest.withUnsafeBufferPointer { source in
                retryingInterrupts { unsafe Glibc.write(raw, source.baseAddress, source.count) }
            }
            if n > 0 {
                offset += n
                continue
            }
            guard n < 0, errno == EAGAIN else { return (offset, .last("write")) }
            var wait = pollfd(fd: raw, events: Int16(POLLOUT), revents: 0)
            _ = unsafe poll(&wait, 1, 1_000)
        }
        return (offset, nil)
    }
}

/// What stands behind a path.
public enum FileKind: Sendable {
    case file, directory, pipe, device, socket

    /// `nil` where there is nothing, or it may not be seen.
    public static func of(_ path: String) -> FileKind? {
        var status = stat()
        return unsafe stat(path, &status) == 0 ? FileKind(status) : nil
    }

    fileprivate init(_ status: stat) {
        switch status.st_mode & S_IFMT {
        case S_IFREG: self = .file
        case S_IFDIR: self = .directory
        case S_IFIFO: self = .pipe
        case S_IFSOCK: self = .socket
        default: self = .device
        }
    }
}

/// Files that are read from their beginning to their end, also pipes.
public enum InputFile {
    public static func standardInput() throws(SystemError) -> Descriptor {
        let raw = dup(0)
        guard raw >= 0 else { throw .last("dup") }
        return Descriptor(adopting: raw)
    }

    public static func open(path: String) throws(SystemError) -> Descriptor {
        let raw = unsafe Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard raw >= 0 else { throw .last("open") }
        return Descriptor(adopting: raw)
    }

    /// Opens whatever it is without waiting for anybody, such as a writer of a pipe.
    public static func openAtOnce(path: String) throws(SystemError) -> Descriptor {
        let raw = unsafe Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        guard raw >= 0 else { throw .last("open") }
        return Descriptor(adopting: raw)
    }

    public static func kind(_ file: borrowing Descriptor) -> FileKind? {
        var status = stat()
        return unsafe fstat(file.raw, &status) == 0 ? FileKind(status) : nil
    }

    /// Bytes of a regular file; `nil` for what has no end that is known.
    public static func size(_ file: borrowing Descriptor) -> Int? {
        var status = stat()
        guard unsafe fstat(file.raw, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
        return Int(status.st_size)
    }

    /// Replaces what is in `bytes` by the next of the file, as many as it has room for; none at its end. Waits where the
    /// file is a slow pipe.
    public static func read(_ file: borrowing Descriptor, into bytes: inout [UInt8]) throws(SystemError) -> Int {
        let raw = file.raw
        let n = retryingInterrupts { unsafe Glibc.read(raw, &bytes, bytes.count) }
        guard n >= 0 else { throw .last("read") }
        return n
    }

    /// One of the kernel's small files; empty where it cannot be read.
    static func read(_ path: String) -> String {
        var all: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 16 << 10)
        do throws(SystemError) {
            let file = try open(path: path)
            while case let n = try read(file, into: &piece), n > 0 { all += piece[..<n] }
        } catch {
            return ""
        }
        return String(decoding: all, as: UTF8.self)
    }
}
