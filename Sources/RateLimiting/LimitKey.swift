// A limit's key in Redis as people and commands have it: read and written as text, where nothing is in a hurry.

import Identity
package import Primitives

/// The name of a subject's window: `rate_limit:POLICY:LIMIT/WINDOW:SUBJECT`.
package struct LimitKey: Hashable, Sendable {
    package let policy: String
    package let limit: Int
    /// `nil` where requests at once are counted.
    package let window: TimeSpan?
    package let form: PolicyForm
    /// As `LimitSubject` writes it.
    package let subject: String

    private static let start = "rate_limit:"

    package init(_ policy: Policy, subject: String) {
        self.init(
            policy: policy.name, limit: policy.limit, window: policy.form == .leases ? nil : policy.window,
            form: policy.form, subject: subject)
    }

    private init(policy: String, limit: Int, window: TimeSpan?, form: PolicyForm, subject: String) {
        self.policy = policy
        self.limit = limit
        self.window = window
        self.form = form
        self.subject = subject
    }

    /// Reads what `text` writes; `nil` for any other key, such as that of a probe.
    package init?(_ key: String) {
        guard key.hasPrefix(Self.start) else { return nil }
        var rest = key.dropFirst(Self.start.count)
        let isTagged = rest.first == "{"
        if isTagged {
            guard rest.last == "}" else { return nil }
            rest = rest.dropFirst().dropLast()
        }
        let parts = rest.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count == 3, !parts[2].isEmpty else { return nil }
        let rule = parts[1].split(separator: "/", omittingEmptySubsequences: false)
        guard rule.count >= 2, let limit = Int(rule[0]) else { return nil }
        let form: PolicyForm = rule[1] == "concurrent" ? .leases : rule.last == "buckets" ? .buckets : .window
        let window = form == .leases ? nil : TimeSpan(written: rule[1])
        self.init(policy: String(parts[0]), limit: limit, window: window, form: form, subject: String(parts[2]))
        // Whatever reads alike but is written otherwise is another's, and so is what would be a command to a terminal, or a
        // subject that no command takes as it is told.
        guard key.unicodeScalars.allSatisfy({ $0.value >= 0x20 && !(0x7f...0x9f).contains($0.value) }) else {
            return nil
        }
        guard (try? LimitSubject(parsing: subject))?.description == subject else { return nil }
        guard form == .leases || window != nil, text(onCluster: isTagged) == key else { return nil }
    }

    package func text(onCluster: Bool) -> String {
        let rule =
            switch form {
            case .window: window.map { "\(limit)/\($0)" } ?? ""
            case .buckets: window.map { "\(limit)/\($0)/buckets" } ?? ""
            case .leases: "\(limit)/concurrent"
            }
        let name = "\(policy):\(rule):\(subject)"
        return Self.start + (onCluster ? "{\(name)}" : name)
    }

    /// What `SCAN MATCH` takes for the windows of a policy or of a subject, or of all.
    package static func pattern(policy: String? = nil, subject: LimitSubject? = nil, onCluster: Bool) -> String {
        if policy == nil, subject == nil { return "\(start)*" }
        let name = "\(policy.map(escaped) ?? "*"):*:\(subject.map { escaped($0.description) } ?? "*")"
        return start + (onCluster ? "{\(name)}" : name)
    }

    private static func escaped(_ text: String) -> String {
        text.reduce(into: "") { result, character in
            if "*?[]^\\".contains(character) { result.append("\\") }
            result.append(character)
        }
    }
}

extension TimeSpan {
    /// Reads what `description` writes.
    fileprivate init?(written text: Substring) {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        let units: [Substring: Int64] = [
            "ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000,
            "d": 86_400_000_000_000,
        ]
        guard let number = Int64(digits), let unit = units[text[digits.endIndex...]] else { return nil }
        self = .nanoseconds(saturatingMultiply(number, unit))
    }
}

/// Whom limits count, in the words of Redis keys.
package struct LimitSubject: Hashable, Sendable, CustomStringConvertible {
    package enum Kind: Hashable, Sendable {
        case ip, user, org, key, service, global
        case header(String)
    }

    package struct NotOne: Error, CustomStringConvertible { package let description: String }

    package let kind: Kind
    /// What stands in the key.
    package let description: String

    /// The words that a subject begins with.
    package static let kinds = ["ip", "user", "org", "key", "service", "header", "global"]

    /// Reads what people write: the words of a Redis key, or a name as it is; an address may stand alone.
    package init(parsing text: String) throws(NotOne) {
        if text == "global" {
            (kind, description) = (.global, text)
            return
        }
        if let address = IPAddress(text) {
            (kind, description) = (.ip, SubjectKey(address).description)
            return
        }
        guard let colon = text.firstIndex(of: ":"), colon != text.startIndex else {
            throw Self.error(text, "no kind stands in front of a colon")
        }
        let value = String(text[text.index(after: colon)...])
        let name = String(text[..<colon])
        guard !value.isEmpty else { throw Self.error(text, "nothing stands behind the colon") }
        switch name {
        case "ip":
            let plain = value.hasSuffix("/64") ? String(value.dropLast(3)) : value
            guard let address = IPAddress(plain) else { throw Self.error(text, "this is no address") }
            (kind, description) = (.ip, SubjectKey(address).description)
        case "user": (kind, description) = (.user, "user:\(Self.written(value))")
        case "org": (kind, description) = (.org, "org:\(Self.written(value))")
        case "key", "apiKey": (kind, description) = (.key, "key:\(Self.written(value))")
        case "service": (kind, description) = (.service, "service:\(value)")
        case "header":
            guard let end = value.firstIndex(of: ":"), end != value.startIndex, !value[end...].dropFirst().isEmpty
            else {
                throw Self.error(text, "write header:NAME:VALUE")
            }
            let header = value[..<end].lowercased()
            kind = .header(header)
            description = "header:\(header):\(Self.written(String(value[value.index(after: end)...])))"
        default: throw Self.error(text, "\(name) is no kind of subject")
        }
    }

    private static func error(_ text: String, _ reason: String) -> NotOne {
        NotOne(
            description: "\"\(text)\": \(reason); subjects are ip:ADDRESS, user:NAME, org:NAME, key:ID, service:NAME, "
                + "header:NAME:VALUE and global")
    }

    /// A value as keys have it. What is written so already stays: it was copied from a key.
    private static func written(_ value: String) -> String {
        if isWritten(value) { return value }
        let bytes = Array(value.utf8)
        var text: [UInt8] = []
        SubjectKey(text: bytes.span, policy: 0).appendValue(to: &text)
        return String(decoding: text, as: UTF8.self)
    }

    /// Whether it has an escape or is a digest, as `SubjectKey` writes them.
    private static func isWritten(_ value: String) -> Bool {
        let bytes = Array(value.utf8)
        func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) || (0x61...0x66).contains(byte) }
        if bytes.first == UInt8(ascii: "~") { return bytes.count == 33 && bytes.dropFirst().allSatisfy(isDigit) }
        var index = 0
        var units = 0
        var hasEscape = false
        while index < bytes.count {
            switch bytes[index] {
            case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x2e, 0x5f: index += 1
            case UInt8(ascii: "%"):
                guard index + 2 < bytes.count, isDigit(bytes[index + 1]), isDigit(bytes[index + 2]) else {
                    return false
                }
                hasEscape = true
                index += 3
            default: return false
            }
            units += 1
        }
        return hasEscape && units <= SubjectKey.textBytesMax
    }

    /// Whether a policy counts it; one that counts identities counts who shows none by address.
    package func isCounted(by key: PolicyKey) -> Bool {
        switch (kind, key) {
        case (.ip, .ip), (.ip, .user), (.ip, .org), (.ip, .apiKey), (.ip, .header): true
        case (.user, .user), (.org, .org), (.key, .apiKey), (.service, .service), (.global, .global): true
        case (.header(let name), .header(let other)): name == other
        default: false
        }
    }

    /// Whether the policy is about such subjects, and does not only fall back on them.
    package func isOwn(of key: PolicyKey) -> Bool { isCounted(by: key) && (kind != .ip || key == .ip) }
}

/// What a window in Redis holds at a time, read without changing it.
package enum LimitContent {
    /// What `ZRANGE key 0 -1 WITHSCORES` of a window in buckets comes to: slots taken, and when the first of them frees.
    package static func buckets(
        _ entries: [(end: Int64, count: Int64)], window: TimeSpan, at now: RedisTime
    ) -> (used: Int, freesAt: RedisTime?) {
        var used: Int64 = 0
        var first: RedisTime?
        for entry in entries where entry.count > 0 {
            let leaves = RedisTime(microseconds: entry.end) + window
            guard leaves >= now else { continue }
            used = saturatingAdd(used, entry.count)
            first = min(first ?? leaves, leaves)
        }
        return (Int(clamping: used), first)
    }
}
