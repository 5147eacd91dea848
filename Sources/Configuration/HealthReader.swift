// The section `health` of a service: which keys there are, and what each may hold.

import Primitives

extension Configuration.Health {
    init(_ map: MappingReader) {
        func span(_ key: String, _ standard: TimeSpan) -> TimeSpan {
            map.read(key, default: standard) { text throws(Invalid) in
                try duration(text, in: .milliseconds(10)...Bounds.timeoutMax)
            }
        }
        func streak(_ key: String, _ standard: Int) -> Int {
            map.read(key, default: standard) { text throws(Invalid) in try integer(text, in: 1...Bounds.streakMax) }
        }
        active = map.read("active", default: true, boolean)
        let type: Configuration.ProbeType = map.read("type", default: .http, choice)
        self.type = type
        let method: Configuration.ProbeMethod = map.read("method", default: .get, choice)
        self.method = method
        path = map.read("path", default: Defaults.healthPath) { text throws(Invalid) in try Self.path(text) }
        headers = headerFields(
            map, reserved: ["connection", "content-length", "transfer-encoding", "te", "upgrade"],
            because: "belongs to the connection, and probes have no body")
        expect = Self.expect(map)
        expectBody = map.read("expectBody", default: nil) { text throws(Invalid) in try Self.text(text) }
        let interval = span("interval", Defaults.interval)
        self.interval = interval
        // Whoever wants to know soon wants it no less when something is amiss.
        warningInterval = span("warningInterval", min(Defaults.warningInterval, interval))
        downInterval = span("downInterval", min(Defaults.downInterval, interval))
        timeout = span("timeout", Defaults.probeTimeout)
        failures = streak("failures", Defaults.failures)
        successes = streak("successes", Defaults.successes)
        quorum = map.read("quorum", default: .majority) { text throws(Invalid) in try Self.quorum(text) }
        let cooldown = span("cooldown", Defaults.cooldown)
        self.cooldown = cooldown
        cooldownMax = span("cooldownMax", max(Defaults.cooldownMax, cooldown))
        maxEjected = map.read("maxEjected", default: Defaults.maxEjected) { text throws(Invalid) in
            try percent(text, in: 0...100)
        }
        slowStart = map.read("slowStart", default: Defaults.slowStart) { text throws(Invalid) in
            try duration(text, in: .zero...Bounds.timeoutMax)
        }
        failureShare = map.optionalSection("failureShare").map { Configuration.FailureShare($0) }
        if type == .tcp {
            for key in ["method", "path", "headers", "expect", "expectBody"] where map.has(key) {
                map.report("has no effect with type: tcp, which only connects; remove it", at: key)
            }
        }
        if method == .head, map.has("expectBody") {
            map.report("an answer to HEAD has no body; write method: GET, or remove this", at: "expectBody")
        }
        if map.has("cooldownMax"), cooldownMax < cooldown {
            map.report("less than cooldown, which is \(cooldown); write that or more", at: "cooldownMax")
        }
        map.finish()
    }

    /// What a probe asks for: a path, and a query if any, sent as they are.
    private static func path(_ text: String) throws(Invalid) -> String {
        guard text.hasPrefix("/"), text.utf8.count <= Bounds.pathBytesMax, !text.contains("#"),
            text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f })
        else { throw Invalid("\(quoted(text)) is not a path to ask for; write one such as /health") }
        return text
    }

    private static func quorum(_ text: String) throws(Invalid) -> Configuration.Quorum {
        switch text {
        case "majority": return .majority
        case "any": return .any
        default:
            guard let count = try? integer(text, in: 1...Bounds.quorumMax) else {
                throw Invalid("\(quoted(text)) is no quorum; write majority, any, or 1...\(Bounds.quorumMax) nodes")
            }
            return .count(count)
        }
    }

    private static func expect(_ map: MappingReader) -> StatusSet {
        map.noteIfAbsent("expect", as: "\(Defaults.expect)")
        guard let value = map.take("expect") else { return Defaults.expect }
        let path = map.path(of: "expect")
        guard let elements = value.elements else {
            return map.scalar(value, path: path, statuses).map { StatusSet(ranges: [$0]) } ?? Defaults.expect
        }
        if elements.isEmpty { map.report("an empty list; write at least one status, such as 200", at: "expect") }
        return StatusSet(
            ranges: elements.enumerated().compactMap { map.scalar($0.element, path: "\(path)[\($0.offset)]", statuses) }
        )
    }

    private static func text(_ text: String) throws(Invalid) -> String {
        guard !text.isEmpty, text.utf8.count <= Bounds.expectBodyBytesMax else {
            throw Invalid("write 1 to \(Bounds.expectBodyBytesMax) bytes that the answer must hold")
        }
        return text
    }
}

/// The mapping `headers`: fields of a request of the node's own.
///
/// - Parameter reserved: names that are not the file's to choose, in lower case.
func headerFields(
    _ map: MappingReader, reserved: [String], because reason: String
) -> [Configuration.ProbeHeader] {
    var headers: [Configuration.ProbeHeader] = []
    for (name, value, key) in map.table("headers").pairs(max: Bounds.probeHeadersMax) {
        let lower = name.lowercased()
        if (try? token(name, max: Bounds.nameBytesMax)) == nil {
            map.report("`\(name)` is not a field name; use letters, digits and !#$%&'*+-.^_`|~", at: key)
        } else if reserved.contains(lower) {
            map.report("`\(name)` \(reason); remove it", at: key)
        } else if headers.contains(where: { $0.name == lower }) {
            map.report("`\(name)` is given twice; keep one", at: key)
        } else if !value.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7f || $0 == 0x09 })
            || value.utf8.count > Bounds.pathBytesMax
        {
            // RFC 9110 §5.5: a line break in a value would begin a field, or a request, of its own.
            map.report("the value of `\(name)` must be one line of at most \(Bounds.pathBytesMax) bytes", at: key)
        } else {
            headers.append(Configuration.ProbeHeader(name: lower, value: value))
        }
    }
    return headers
}

extension Configuration.FailureShare {
    init(_ map: MappingReader) {
        share = map.read("share", default: Defaults.failureShare) { text throws(Invalid) in
            try percent(text, in: 1...100)
        }
        window = map.read("window", default: Defaults.failureWindow) { text throws(Invalid) in
            try duration(text, in: .milliseconds(100) ... .seconds(3_600))
        }
        requests = map.read("requests", default: Defaults.failureRequests) { text throws(Invalid) in
            try integer(text, in: 1...Bounds.countMax)
        }
        map.finish()
    }
}
