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
    private var next: UInt64

    /// - Parameters:
    ///   - boot: 64 random bits, new with every start of a process.
    ///   - era: tells the limiters of one process from each other; the first says nothing of it.
    ///   - shard: tells what gives names for the same worker from each other, by digits in front of the twelve: on a
    ///     cluster a window, and what is remembered of it, can move to where another gives names.
    package init(boot: UInt64, worker: Int, era: Int = 0, shard: Int = 0) {
        let digits = String(boot, radix: 16)
        let padded = String(repeating: "0", count: 16 - digits.count) + digits
        prefix = Array("\(padded)-\(worker)\(era == 0 ? "" : ".\(era)")-".utf8)
        next = UInt64(shard) << 48
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

/// The Redis keys of a policy: `rate_limit:POLICY:LIMIT/WINDOW:SUBJECT`. On a cluster braces surround what stands behind
/// `rate_limit:`, so that everything of one policy and subject shares a slot, and subjects spread over all slots.
package struct WindowKey: Sendable {
    package let policy: Policy
    private let prefix: [UInt8]
    /// Whether each transaction also counts what is in the window, so that a client can be told what remains.
    package let tellsRemaining: Bool
    /// What stands before a text: a header's value, or whom a credential names.
    private let header: [UInt8]
    private let services: [[UInt8]]
    private let isTagged: Bool
    /// Of a policy in buckets.
    let buckets: Buckets

    /// - Parameter services: their names, by their numbers.
    package init(_ policy: Policy, services: [String] = [], tellsRemaining: Bool = false, onCluster: Bool = false) {
        self.policy = policy
        self.tellsRemaining = tellsRemaining
        isTagged = onCluster
        buckets = Buckets(window: policy.window)
        let text = policy.keyPrefix
        prefix = Array(onCluster ? "rate_limit:{\(text.dropFirst("rate_limit:".count))".utf8 : text.utf8)
        switch policy.key {
        case .header(let name): header = Array("header:\(name):".utf8)
        case .user: header = Array("user:".utf8)
        case .org: header = Array("org:".utf8)
        case .apiKey: header = Array("key:".utf8)
        case .ip, .service, .global: header = []
        }
        self.services = services.map { Array("service:\($0)".utf8) }
    }

    package func write(_ subject: SubjectKey, to buffer: inout ByteBuffer) {
        buffer.append(prefix.span)
        writeSubject(subject, to: &buffer)
        if isTagged { buffer.append(UInt8(ascii: "}")) }
    }

    private func writeSubject(_ subject: SubjectKey, to buffer: inout ByteBuffer) {
        guard let address = subject.address else { return writeOther(subject, to: &buffer) }
        buffer.append("ip:")
        buffer.append(address)
        if address.family == .v6 { buffer.append("/64") }
    }

    /// Services go by their names: nodes may number them differently.
    private func writeOther(_ subject: SubjectKey, to buffer: inout ByteBuffer) {
        if let service = subject.service, services.indices.contains(service) {
            let text = services[service]
            buffer.append(text.span)
            return
        }
        var text: [UInt8] = []
        if header.isEmpty { subject.appendText(to: &text) } else { subject.appendValue(to: &text) }
        buffer.append(header.span)
        buffer.append(text.span)
    }

    /// The subject as it stands in the key, for people.
    package func name(_ subject: SubjectKey) -> String {
        var buffer = ByteBuffer()
        writeSubject(subject, to: &buffer)
        return String(decoding: buffer.array, as: UTF8.self)
    }

    /// The key as text, for logs.
    package func text(_ subject: SubjectKey) -> String {
        var buffer = ByteBuffer()
        write(subject, to: &buffer)
        return String(decoding: buffer.array, as: UTF8.self)
    }

    /// A key under which nothing is ever stored: for asking whether the server takes writes.
    package func writeProbe(tag: [UInt8], to buffer: inout ByteBuffer) {
        guard isTagged else {
            buffer.append(prefix.span)
            buffer.append("probe")
            return
        }
        buffer.append("rate_limit:{")
        buffer.append(tag.span)
        buffer.append("}:probe")
    }

    /// A marker that is lost when the server loses its data.
    package func writeEpoch(tag: [UInt8], to buffer: inout ByteBuffer) {
        buffer.append("sluice:epoch")
        guard isTagged else { return }
        buffer.append(":{")
        buffer.append(tag.span)
        buffer.append(UInt8(ascii: "}"))
    }
}
