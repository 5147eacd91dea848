// One element of `services`: which keys there are, and what each may hold.

import Primitives

extension Configuration.Service {
    /// After an error, which is reported then, `name`, `path` or `instances` may be empty.
    init(_ map: MappingReader, defaults: Configuration.Gateway) {
        let name = map.readRequired("name", hint: "write one such as user-service") { text throws(Invalid) in
            try Self.name(text)
        }
        let path = map.readRequired("path", hint: "write the prefix that it serves, such as /api/users", pathPrefix)
        stripPrefix = map.read("stripPrefix", default: true, boolean)
        hostHeader = map.read("hostHeader", default: .client, choice)
        methods = map.readList("methods", default: [], max: Bounds.methodsMax) { text throws(Invalid) in
            try Self.method(text)
        }
        upgrades = map.readList("upgrades", default: Defaults.upgrades, max: Bounds.upgradesMax) {
            text throws(Invalid) in
            try Self.upgrade(text)
        }
        timeouts = Configuration.Timeouts(map.section("timeouts"), response: defaults.timeout)
        retries = Configuration.Retries(of: map)
        limits = Configuration.ServiceLimits(map.section("limits"), bodyBytes: defaults.limits.bodyBytes)
        auth = Configuration.ServiceAuth(map)
        let strategy: Configuration.Strategy = map.read("strategy", default: .roundRobin, choice)
        self.strategy = strategy
        hashOn = map.read("hashOn", default: .client) { text throws(Invalid) in
            try Configuration.HashOn(parsing: text)
        }
        instances = InstanceReader(map).backends()
        leastConnections = Configuration.LeastConnections(map.section("leastConnections"))
        pool = Configuration.Pool(map.section("pool"))
        health = Configuration.Health(map.section("health"))
        // Who writes the section wants it to break; nobody else may find a service shut by what its one backend answers.
        circuitBreaker = Configuration.CircuitBreaker(
            map.section("circuitBreaker"), spareLast: !map.has("circuitBreaker"))
        transforms = Configuration.Transforms.read(map)

        map.finish()
        self.name = name ?? ""
        self.path = path ?? ""
    }

    private static func name(_ text: String) throws(Invalid) -> String {
        guard !text.isEmpty, text.utf8.count <= Bounds.nameBytesMax, text.utf8.allSatisfy(isNameByte) else {
            throw Invalid(
                "\(quoted(text)) is not a name; use 1 to \(Bounds.nameBytesMax) letters, digits, `-`, `_` and `.`")
        }
        // --set services.0.strategy means the first service.
        if text.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) {
            throw Invalid("\(quoted(text)) is a number, which --set would take for an index; add a letter")
        }
        return text
    }

    private static func method(_ text: String) throws(Invalid) -> String {
        let name = try token(text, max: Bounds.methodBytesMax)
        if name == "CONNECT" { throw Invalid("`CONNECT` is not implemented; remove it") }
        // RFC 9110 §9.1: `get` is a method of its own, which nobody means.
        let upper = name.uppercased()
        if name != upper, ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"].contains(upper) {
            throw Invalid("methods are case-sensitive; write \(upper)")
        }
        return name
    }

    private static func upgrade(_ text: String) throws(Invalid) -> String {
        let name = try token(text.lowercased(), max: Bounds.nameBytesMax)
        // RFC 9113 §3.1 dropped it; passed on, it opens a tunnel past routes and limits.
        if name == "h2c" || name == "h2" {
            throw Invalid("\(quoted(text)) would carry requests past the gateway; remove it")
        }
        return name
    }
}

extension Configuration.Timeouts {
    init(_ map: MappingReader, response standard: TimeSpan?) {
        connect = map.read("connect", default: Defaults.connectTimeout) { text throws(Invalid) in
            try duration(text, in: .milliseconds(1) ... .seconds(300))
        }
        response = map.read("response", default: standard) { text throws(Invalid) in try durationOrNone(text) }
        idle = map.read("idle", default: Defaults.backendIdleTimeout) { text throws(Invalid) in
            try durationOrNone(text)
        }
        tunnel = map.read("tunnel", default: Defaults.tunnelTimeout) { text throws(Invalid) in
            try durationOrNone(text)
        }
        tunnelGrace = map.read("tunnelGrace", default: Defaults.tunnelGrace) { text throws(Invalid) in
            try durationOrNone(text)
        }
        map.finish()
    }
}

extension Configuration.ServiceLimits {
    init(_ map: MappingReader, bodyBytes standard: ByteCount?) {
        bodyBytes = map.read("bodyBytes", default: standard) { text throws(Invalid) in try sizeOrNone(text) }
        map.finish()
    }
}

extension Configuration.HashOn {
    /// Reads `client`, `user`, `path`, `header:NAME` or `cookie:NAME`.
    init(parsing text: String) throws(Invalid) {
        switch text {
        case "client": self = .client
        case "user": self = .user
        case "path": self = .path
        default:
            let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, parts[0] == "header" || parts[0] == "cookie" else {
                throw Invalid(notOneOf(text, ["client", "user", "path", "header:NAME", "cookie:NAME"]))
            }
            let name = try token(String(parts[1]), max: Bounds.nameBytesMax)
            // Field names ignore case (RFC 9110 §5.1), cookie names do not (RFC 6265 §5.2).
            self = parts[0] == "header" ? .header(name.lowercased()) : .cookie(name)
        }
    }
}

extension Configuration.LeastConnections {
    init(_ map: MappingReader) {
        scope = map.read("scope", default: .node, choice)
        map.finish()
    }
}

extension Configuration.Pool {
    init(_ map: MappingReader) {
        let connections: Int? = map.read("connections", default: nil) { text throws(Invalid) in
            try integerOrNone(text, max: Bounds.countMax)
        }
        let standard = min(Defaults.poolIdle, connections ?? .max)
        idle = map.read("idle", default: standard) { text throws(Invalid) in
            try integer(text, in: 0...Bounds.countMax)
        }
        self.connections = connections
        if let connections, idle > connections {
            map.report("more than connections, which is \(connections); write that or less", at: "idle")
        }
        map.finish()
    }
}

extension Configuration.CircuitBreaker {
    init(_ map: MappingReader, spareLast standard: Bool) {
        failures = map.read("failures", default: Defaults.breakerFailures) { text throws(Invalid) in
            try integer(text, in: 1...Bounds.streakMax)
        }
        openFor = map.read("openFor", default: Defaults.breakerOpenFor) { text throws(Invalid) in
            try duration(text, in: .milliseconds(10)...Bounds.timeoutMax)
        }
        spareLast = map.read("spareLast", default: standard, boolean)
        map.finish()
    }
}
