import Glibc

/// Files that are only written to: logs.
public enum OutputFile {
    public static func standardOutput() throws(SystemError) -> Descriptor { try duplicate(1) }

    private static func duplicate(_ number: Int32) throws(SystemError) -> Descriptor {
        let raw = dup(number)
        guard raw >= 0 else { throw .last("dup") }
        return Descriptor(adopting: raw)
    }

    /// Opens a file for appending, made if it is missing.
    public static func append(path: String) throws(SystemError) -> Descriptor {
        let raw = unsafe open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o644)
        guard raw >= 0 else { throw .last("open") }
        return Descriptor(adopting: raw)
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
