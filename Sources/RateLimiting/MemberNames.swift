package import Identity
package import LinuxIO
import Primitives

/// Names of the entries of one worker: `boot-worker-sequence`, the sequence of a fixed width, so that among entries of
/// equal score rank is the order of arrival.
///
/// The boot value is random: a restarted node that used a name again would only move the old entry, and admit once
/// more. A timestamp as the name was rejected: two requests of one microsecond would count as one.
package struct MemberNames: Sendable {
    private let prefix: [UInt8]
    private var next: UInt64 = 0

    /// - Parameter boot: 64 random bits, new with every start of a process.
    package init(boot: UInt64, worker: Int) {
        let digits = String(boot, radix: 16)
        let padded = String(repeating: "0", count: 16 - digits.count) + digits
        prefix = Array("\(padded)-\(worker)-".utf8)
    }

    /// Takes `count` names in a row; returns the first one's sequence number.
    package mutating func take(_ count: Int) -> UInt64 {
        let first = next
        next &+= UInt64(count)
        return first
    }

    /// Twelve digits last for nine years at a million requests a second and worker.
    package func write(_ sequence: UInt64, to buffer: inout ByteBuffer) {
        buffer.append(prefix.span)
        buffer.append(hexadecimal: sequence, width: 12)
    }
}

/// The Redis keys of a policy: `rate_limit:POLICY:LIMIT/WINDOW:SUBJECT`.
package struct WindowKey: Sendable {
    package let policy: Policy
    private let prefix: [UInt8]

    package init(_ policy: Policy) {
        self.policy = policy
        prefix = Array(policy.keyPrefix.utf8)
    }

    package func write(_ subject: SubjectKey, to buffer: inout ByteBuffer) {
        buffer.append(prefix.span)
        buffer.append("ip:")
        buffer.append(subject.address)
        if subject.address.family == .v6 { buffer.append("/64") }
    }

    /// A key under which nothing is ever stored: for asking whether the server takes writes.
    package func writeProbe(to buffer: inout ByteBuffer) {
        buffer.append(prefix.span)
        buffer.append("probe")
    }

    /// A marker that is lost when the server loses its data.
    package func writeEpoch(to buffer: inout ByteBuffer) { buffer.append("sluice:epoch") }
}
