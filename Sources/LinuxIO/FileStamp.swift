import CLinux
import Glibc
public import Primitives

/// What tells one state of a file from another without reading it. Links are followed, so a link that leads elsewhere
/// shows as another file.
public struct FileStamp: Equatable, Sendable {
    private let device: UInt64
    private let inode: UInt64
    private let size: Int64
    private let seconds: Int64
    private let nanoseconds: Int64

    /// `nil` where there is no such file, or it may not be seen.
    public static func of(_ path: String) -> FileStamp? {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else { return nil }
        return FileStamp(
            device: UInt64(status.st_dev), inode: UInt64(status.st_ino), size: Int64(status.st_size),
            seconds: Int64(status.st_mtim.tv_sec), nanoseconds: Int64(status.st_mtim.tv_nsec))
    }

    /// Which file it is, whatever it holds by now.
    public static func identity(of path: String) -> FileStamp? {
        guard let stamp = of(path) else { return nil }
        return FileStamp(device: stamp.device, inode: stamp.inode, size: 0, seconds: 0, nanoseconds: 0)
    }
}

extension Signals {
    /// Lets this thread rest. Never on a loop.
    public static func pause(_ span: TimeSpan) {
        var time = timespec(
            tv_sec: Int(clamping: span.nanoseconds / 1_000_000_000),
            tv_nsec: Int(clamping: span.nanoseconds % 1_000_000_000))
        _ = unsafe nanosleep(&time, nil)
    }

    /// Sends a signal to a process.
    public static func send(_ number: Int32, to process: Int32) throws(SystemError) {
        guard Glibc.kill(process, number) == 0 else { throw .last("kill") }
    }
}
