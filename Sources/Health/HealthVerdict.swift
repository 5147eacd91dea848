// One node's opinion of one backend, as it is kept in a hash and told on a channel (`WireJSON`).

package import Membership

/// Milliseconds since 1970 by the clock of whoever wrote it. For people to read; nothing is decided by it.
package struct UnixTime: Hashable, Comparable, Sendable {
    package var milliseconds: Int64

    package init(milliseconds: Int64) { self.milliseconds = milliseconds }

    package static func < (a: UnixTime, b: UnixTime) -> Bool { a.milliseconds < b.milliseconds }
}

/// What a verdict says.
package enum VerdictState: String, Codable, Sendable { case up, down }

/// What a verdict rests on: the node's own probes, or the traffic that it forwarded.
package enum EvidenceKind: String, Codable, Sendable { case probe, traffic }

package struct HealthVerdict: Hashable, Sendable {
    /// Room for a sentence; longer texts are cut when written and refused when read.
    package static let evidenceBytesMax = 200

    package var state: VerdictState
    package var kind: EvidenceKind
    /// The run of the node that wrote it; sequences are comparable within one run only.
    package var boot: BootID
    /// Counts this node's verdicts since it started, from 1.
    package var sequence: UInt64
    package var since: UnixTime
    /// Which check the node makes; `nil` from nodes that do not say.
    package var check: UInt64?
    /// Why, for people: `3 failed probes: status 503`.
    package private(set) var evidence: String

    package init(
        state: VerdictState, kind: EvidenceKind, boot: BootID, sequence: UInt64, since: UnixTime,
        check: UInt64? = nil, evidence: String
    ) {
        self.check = check
        self.state = state
        self.kind = kind
        self.boot = boot
        self.sequence = sequence
        self.since = since
        self.evidence = Self.bounded(evidence)
    }

    /// Cuts a text to the bound at a character, and makes spaces of control characters.
    static func bounded(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            let plain: Unicode.Scalar = isPlain(scalar) ? scalar : " "
            if result.utf8.count + UTF8.width(plain) > evidenceBytesMax { break }
            result.unicodeScalars.append(plain)
        }
        return result
    }

    private static func isPlain(_ scalar: Unicode.Scalar) -> Bool {
        scalar.value >= 0x20 && !(0x7f...0x9f).contains(scalar.value)
    }

    // MARK: JSON

    fileprivate struct Wire: Codable {
        var service: String?
        var backend: String?
        var node: String?
        var state: VerdictState
        var kind: EvidenceKind
        var boot: String
        var sequence: UInt64
        var since: Int64
        /// 16 hexadecimal digits.
        var check: String?
        var evidence: String

        init(_ verdict: HealthVerdict) {
            check = verdict.check.map { BootID($0).description }
            state = verdict.state
            kind = verdict.kind
            boot = verdict.boot.description
            sequence = verdict.sequence
            since = verdict.since.milliseconds
            evidence = verdict.evidence
        }
    }

    package var json: String { WireJSON.text(Wire(self)) }

    package init(json bytes: [UInt8]) throws(HealthFormatError) { try self.init(WireJSON.read(bytes) as Wire) }

    fileprivate init(_ wire: Wire) throws(HealthFormatError) {
        let boot = try WireJSON.boot(wire.boot)
        guard wire.evidence.utf8.count <= Self.evidenceBytesMax,
            wire.evidence.unicodeScalars.allSatisfy(Self.isPlain)
        else { throw .badEvidence }
        let check = wire.check.flatMap { BootID(hex: $0)?.value }
        if wire.check != nil, check == nil { throw .malformed }
        self.init(
            state: wire.state, kind: wire.kind, boot: boot, sequence: wire.sequence,
            since: UnixTime(milliseconds: wire.since), check: check, evidence: wire.evidence)
    }
}

/// A verdict with its author and its subject: one message on the channel `sluice:health`.
package struct HealthNews: Hashable, Sendable {
    package var backend: BackendKey
    package var node: NodeID
    package var verdict: HealthVerdict

    package init(backend: BackendKey, node: NodeID, verdict: HealthVerdict) {
        self.backend = backend
        self.node = node
        self.verdict = verdict
    }

    package var json: String {
        var wire = HealthVerdict.Wire(verdict)
        wire.service = backend.service
        wire.backend = backend.url
        wire.node = node.text
        return WireJSON.text(wire)
    }

    package init(json bytes: [UInt8]) throws(HealthFormatError) {
        let wire: HealthVerdict.Wire = try WireJSON.read(bytes)
        guard let service = wire.service, let url = wire.backend, let name = wire.node else { throw .malformed }
        node = try WireJSON.node(name)
        backend = BackendKey(service: service, url: url)
        verdict = try HealthVerdict(wire)
    }
}
