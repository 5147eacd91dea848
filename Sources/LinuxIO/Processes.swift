// Other processes: starting, ending and replacing them. Swift cannot fork; posix_spawn(3) does all that is needed.

import CLinux
import Glibc

/// How a process has ended.
public enum ProcessEnd: Equatable, Sendable, CustomStringConvertible {
    case exited(Int32)
    case killed(signal: Int32)

    public var description: String {
        switch self {
        case .exited(let code): "exit code \(code)"
        case .killed(let signal): Signals.name(signal)
        }
    }
}

public enum Processes {
    public static var ownID: Int32 { getpid() }

    public static var environment: [String: String] {
        var variables: [String: String] = [:]
        var entry = unsafe environ
        while let variable = unsafe entry.pointee {
            let text = unsafe String(cString: variable)
            if let end = text.firstIndex(of: "=") {
                variables[String(text[..<end])] = String(text[text.index(after: end)...])
            }
            unsafe entry += 1
        }
        return variables
    }

    /// Starts a program.
    ///
    /// - Parameters:
    ///   - program: a path, or a name to look for in `PATH`.
    ///   - arguments: with the program's own name in front.
    ///   - keeping: descriptors that the new process gets under the same numbers; it gets no others but the first three.
    ///   - blocking: the signals that it is started with blocked, and no others. One that comes before the program can take
    ///     it then waits, and does not end it.
    ///   - ownGroup: whether signals of a terminal pass it by.
    public static func start(
        _ program: String, _ arguments: [String], environment: [String: String], keeping: [Int32],
        blocking: [Int32] = [], ownGroup: Bool
    ) throws(SystemError) -> Int32 {
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        // The same number twice takes the mark from it that would close it (posix_spawn_file_actions_adddup2(3)).
        for raw in keeping { unsafe posix_spawn_file_actions_adddup2(&actions, raw, raw) }
        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        var blocked = sigset_t()
        unsafe sigemptyset(&blocked)
        for number in blocking { unsafe sigaddset(&blocked, number) }
        unsafe posix_spawnattr_setsigmask(&attributes, &blocked)
        var flags = Int16(POSIX_SPAWN_SETSIGMASK)
        if ownGroup {
            unsafe posix_spawnattr_setpgroup(&attributes, 0)
            flags |= Int16(POSIX_SPAWN_SETPGROUP)
        }
        unsafe posix_spawnattr_setflags(&attributes, flags)
        var id: pid_t = 0
        let result = unsafe withVectors(arguments, environment) { argv, envp in
            unsafe posix_spawnp(&id, program, &actions, &attributes, argv, envp)
        }
        guard result == 0 else { throw SystemError("posix_spawn", number: result) }
        return id
    }

    /// Runs another program in this process: same id, same children, no return. Descriptors in `keeping` stay open.
    public static func replace(
        _ program: String, _ arguments: [String], environment: [String: String], keeping: [Int32]
    ) throws(SystemError) {
        for raw in keeping { _ = fcntl(raw, F_SETFD, 0) }
        _ = unsafe withVectors(arguments, environment) { argv, envp in unsafe execvpe(program, argv, envp) }
        let error = SystemError.last("execvpe")
        for raw in keeping { _ = fcntl(raw, F_SETFD, FD_CLOEXEC) }
        throw error
    }

    private static func withVectors(
        _ arguments: [String], _ environment: [String: String],
        _ body: (
            UnsafePointer<UnsafeMutablePointer<CChar>?>, UnsafePointer<UnsafeMutablePointer<CChar>?>
        ) -> Int32
    ) -> Int32 {
        var argv = unsafe arguments.map { unsafe strdup($0) } + [nil]
        var envp = unsafe environment.map { unsafe strdup("\($0.key)=\($0.value)") } + [nil]
        defer {
            for index in unsafe argv.indices { unsafe free(argv[index]) }
            for index in unsafe envp.indices { unsafe free(envp[index]) }
        }
        return unsafe body(&argv, &envp)
    }

    public static func send(_ signal: Int32, to id: Int32) { _ = kill(id, signal) }

    /// A child that has ended, if there is one: whichever it is, adopted ones of a container's first process included.
    public static func reap() -> (id: Int32, end: ProcessEnd)? {
        var status: Int32 = 0
        let id = unsafe waitpid(-1, &status, WNOHANG)
        guard id > 0 else { return nil }
        return (id, end(status))
    }

    /// Waits for one child.
    public static func wait(for id: Int32) -> ProcessEnd {
        var status: Int32 = 0
        while unsafe waitpid(id, &status, 0) < 0, errno == EINTR {}
        return end(status)
    }

    private static func end(_ status: Int32) -> ProcessEnd {
        status & 0x7f == 0 ? .exited((status >> 8) & 0xff) : .killed(signal: status & 0x7f)
    }

    /// Says on standard error where a thread was when it crashed.
    public static func reportCrashes() { sluice_report_crashes() }
}

/// Signals as something to wait for beside other things (signalfd(2)). Block them first.
public struct SignalSource: ~Copyable {
    public let descriptor: Descriptor

    public init(_ numbers: [Int32]) throws(SystemError) {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for number in numbers { unsafe sigaddset(&set, number) }
        let raw = unsafe signalfd(-1, &set, Int32(SFD_CLOEXEC) | Int32(SFD_NONBLOCK))
        guard raw >= 0 else { throw .last("signalfd") }
        descriptor = Descriptor(adopting: raw)
    }

    /// The next one that has come.
    public func next() -> Int32? {
        var info = signalfd_siginfo()
        let size = MemoryLayout<signalfd_siginfo>.size
        guard unsafe read(descriptor.raw, &info, size) == size else { return nil }
        return Int32(info.ssi_signo)
    }
}

/// Waits until one of a few descriptors is readable or has ended (poll(2)), at most `span`.
public func awaitReadable(_ descriptors: [Int32], atMost milliseconds: Int32?) -> [Bool] {
    var states = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    guard unsafe poll(&states, nfds_t(states.count), milliseconds ?? -1) > 0 else {
        return descriptors.map { _ in false }
    }
    return states.map { $0.revents != 0 }
}

/// One end of a line between two processes that passes messages and descriptors on (unix(7), SOCK_SEQPACKET).
public final class Channel: Sendable {
    public let descriptor: Descriptor

    private static let descriptorsMax = 253
    private static let messageMax = 4_096

    public init(adopting raw: Int32) { descriptor = Descriptor(inherited: raw) }

    /// Both ends.
    public static func pair() throws(SystemError) -> (Channel, Channel) {
        var ends: [Int32] = [-1, -1]
        guard unsafe socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            throw .last("socketpair")
        }
        return (Channel(adopting: ends[0]), Channel(adopting: ends[1]))
    }

    /// Sends a message with descriptors, which stay this process's as well. `false` where nobody listens.
    @discardableResult
    public func send(_ text: String, _ descriptors: [Int32] = []) -> Bool {
        let bytes = Array(text.utf8.prefix(Self.messageMax))
        return unsafe sluice_send_descriptors(
            descriptor.raw, bytes, UInt(bytes.count), descriptors, UInt32(descriptors.count)) == bytes.count
    }

    /// Waits for the next message; `nil` at the end. The descriptors are the caller's to close.
    public func receive() -> (text: String, descriptors: [Int32])? {
        var bytes = [UInt8](repeating: 0, count: Self.messageMax)
        var descriptors = [Int32](repeating: -1, count: Self.descriptorsMax)
        var count: UInt32 = 0
        let n = retryingInterrupts {
            unsafe sluice_receive_descriptors(descriptor.raw, &bytes, UInt(bytes.count), &descriptors, &count)
        }
        guard n > 0 else { return nil }
        return (String(decoding: bytes[..<n], as: UTF8.self), Array(descriptors.prefix(Int(count))))
    }
}

extension Socket {
    /// Sends one datagram to a Unix socket, where `@` in front of its path stands for the abstract kind (unix(7)).
    @discardableResult
    public static func sendDatagram(_ text: String, to path: String) -> Bool {
        let raw = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { return false }
        let descriptor = Descriptor(adopting: raw)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        var name = Array(path.utf8)
        guard !name.isEmpty, name.count < MemoryLayout.size(ofValue: address.sun_path) else { return false }
        if name[0] == UInt8(ascii: "@") { name[0] = 0 }
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: name) }
        // The length says where an abstract name ends: zeros behind it would belong to it.
        let length = socklen_t(MemoryLayout<sa_family_t>.size + name.count + (name[0] == 0 ? 0 : 1))
        let bytes = Array(text.utf8)
        let sent = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe sendto(descriptor.raw, bytes, bytes.count, Int32(MSG_NOSIGNAL), $0, length)
            }
        }
        return sent == bytes.count
    }
}
