// The one file that reads errno and decides what each value means.

import Glibc

/// A system call that failed: which one, and why.
public struct SystemError: Error, Equatable, Sendable, CustomStringConvertible {
    public let call: StaticString
    public let number: Int32

    public init(_ call: StaticString, number: Int32) {
        self.call = call
        self.number = number
    }

    /// The failure of the call that has just returned.
    static func last(_ call: StaticString) -> SystemError { SystemError(call, number: errno) }

    public static func == (a: SystemError, b: SystemError) -> Bool { a.number == b.number }

    public var description: String { "\(call): \(reason)" }

    /// The system's own words, for example `Connection refused`.
    public var reason: String {
        var text = [CChar](repeating: 0, count: 128)
        guard unsafe strerror_r(number, &text, text.count) == 0 else { return Self.name(number) }
        let bytes = text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
        return bytes.isEmpty ? Self.name(number) : String(decoding: bytes, as: UTF8.self)
    }

    private static func name(_ number: Int32) -> String {
        switch number {
        case ECONNREFUSED: "Connection refused"
        case ECONNRESET: "Connection reset by peer"
        case EPIPE: "Broken pipe"
        case ETIMEDOUT: "Connection timed out"
        case EADDRINUSE: "Address already in use"
        case EACCES: "Permission denied"
        case EHOSTUNREACH: "No route to host"
        case ENETUNREACH: "Network is unreachable"
        case EMFILE, ENFILE: "Too many open files"
        case ENOENT: "No such file or directory"
        default: "error \(number)"
        }
    }

    public var isAddressInUse: Bool { number == EADDRINUSE }
    public var isMissing: Bool { number == ENOENT }
    public var isForbidden: Bool { number == EACCES || number == EPERM }
    /// Whether a host has said that nobody listens there.
    public var isConnectionRefused: Bool { number == ECONNREFUSED }
    /// The process or the system has no descriptor left: accepting must pause instead of spinning.
    public var isOutOfDescriptors: Bool {
        number == EMFILE || number == ENFILE || number == ENOBUFS || number == ENOMEM
    }

    public static let timedOut = SystemError("connect", number: ETIMEDOUT)
    public static let closedByPeer = SystemError("recv", number: ECONNRESET)
    public static let invalidAddress = SystemError("connect", number: EINVAL)
}

/// What one attempt to read or write came to.
public enum IOOutcome: Equatable, Sendable {
    case bytes(Int)
    /// Nothing can be done before epoll says so.
    case wouldBlock
    case endOfFile
    case failed(SystemError)
}

/// Calls again while a signal interrupts.
@inline(__always)
func retryingInterrupts<Result: SignedInteger>(_ body: () -> Result) -> Result {
    while true {
        let result = body()
        if result >= 0 || errno != EINTR { return result }
    }
}

/// The meaning of what `recv`, `send` and their like returned.
@inline(__always)
func outcome(_ result: Int, _ call: StaticString, zeroIsEnd: Bool) -> IOOutcome {
    if result > 0 { return .bytes(result) }
    if result == 0 { return zeroIsEnd ? .endOfFile : .bytes(0) }
    let number = errno
    if number == EAGAIN || number == EWOULDBLOCK { return .wouldBlock }
    return .failed(SystemError(call, number: number))
}
