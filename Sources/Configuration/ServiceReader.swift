import Primitives

/// Reads one service.
struct ServiceReader {
    let list: ProblemList
    let gateway: Configuration.Gateway

    func read(_ section: SectionReader) -> Configuration.Service {
        var service = Configuration.Service(name: "", path: "", timeouts: .init(response: gateway.timeout))
        readName(section, &service)
        readPath(section, &service)
        section.flag("stripPrefix", &service.stripPrefix)
        section.choice("hostHeader", &service.hostHeader)
        if let words = section.words("upgrades") { service.upgrades = words.map { $0.text.lowercased() } }
        let timeouts = section.section("timeouts")
        timeouts.duration("connect", &service.timeouts.connect, from: .milliseconds(1))
        timeouts.duration("response", &service.timeouts.response, from: .zero)
        timeouts.duration("idle", &service.timeouts.idle, from: .milliseconds(1))
        timeouts.finish()
        section.choice("strategy", &service.strategy)
        readHashOn(section, &service)
        service.instances = readInstances(section, service)
        let leastConnections = section.section("leastConnections")
        leastConnections.choice("scope", &service.leastConnections)
        if service.leastConnections == .cluster {
            warn(leastConnections.origin(of: "scope"), "\(leastConnections.name("scope")): cluster counts only this node's requests for now")
        }
        leastConnections.finish()
        let pool = section.section("pool")
        pool.integer("idle", &service.pool.idle, in: 0...100_000)
        pool.integer("connections", &service.pool.connections, in: 0...1_000_000)
        pool.finish()
        var body = ByteCount.bytes(-1)
        section.size("bodyBytes", &body)
        if body.bytes >= 0 { service.bodyBytes = body }
        service.health = readHealth(section.section("health"))
        if let value = section.value("circuitBreaker") {
            let breaker = SectionReader(value, path: section.name("circuitBreaker"), list: list, fallback: section.origin)
            breaker.integer("failures", &service.circuitBreaker.failures, in: 1...1_000_000)
            breaker.duration("openFor", &service.circuitBreaker.openFor, from: .milliseconds(1))
            breaker.finish()
            warn(value.origin, "\(section.name("circuitBreaker")) has no effect yet: health ejects failing backends")
        }
        section.finish()
        return service
    }

    private func warn(_ origin: Origin, _ message: String) {
        list.warnings.append(ConfigurationProblem(place: origin.place, message: message))
    }

    private func readName(_ section: SectionReader, _ service: inout Configuration.Service) {
        guard let (text, origin) = section.text("name") else {
            list.report(section.origin, "\(section.name("name")) is missing")
            return
        }
        // It is part of Redis keys and of log lines.
        let allowed = text.utf8.allSatisfy { byte in
            byte >= 0x30 && byte <= 0x39 || byte | 0x20 >= 0x61 && byte | 0x20 <= 0x7a || byte == UInt8(ascii: "-")
                || byte == UInt8(ascii: "_") || byte == UInt8(ascii: ".")
        }
        guard allowed, (1...64).contains(text.utf8.count) else {
            list.report(
                origin, "\(section.name("name")) must be 1 to 64 letters, digits, dots, dashes or underscores, not \"\(text)\"")
            return
        }
        service.name = text
    }

    private func readPath(_ section: SectionReader, _ service: inout Configuration.Service) {
        guard let (text, origin) = section.text("path") else {
            list.report(section.origin, "\(section.name("path")) is missing: write the prefix that the service answers, such as /api/users")
            return
        }
        var path = text
        while path.count > 1, path.hasSuffix("/") { path.removeLast() }
        let segments = path.split(separator: "/", omittingEmptySubsequences: false).dropFirst()
        let visible = path.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f }
        if !path.hasPrefix("/") {
            list.report(origin, "\(section.name("path")) must begin with /, not \"\(text)\"")
        } else if path.contains("?") || path.contains("#") || !visible {
            list.report(origin, "\(section.name("path")) must be a plain path: no query, no fragment, no spaces; escape others as %XX")
        } else if path != "/", segments.contains(where: { $0.isEmpty || $0 == "." || $0 == ".." }) {
            list.report(origin, "\(section.name("path")) must not hold empty or dot segments")
        } else {
            service.path = path
        }
    }

    private func readHashOn(_ section: SectionReader, _ service: inout Configuration.Service) {
        guard let (text, origin) = section.text("hashOn") else { return }
        if service.strategy != .consistentHash {
            list.report(origin, "\(section.name("hashOn")) needs strategy: consistent_hash")
        }
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        let name = parts.count == 2 ? String(parts[1]) : ""
        let isToken = !name.isEmpty && name.utf8.count <= 64 && name.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: ":") }
        switch (parts[0], isToken) {
        case ("client", false) where parts.count == 1: service.hashOn = .client
        case ("user", false) where parts.count == 1: service.hashOn = .user
        case ("path", false) where parts.count == 1: service.hashOn = .path
        case ("header", true): service.hashOn = .header(name)
        case ("cookie", true): service.hashOn = .cookie(name)
        default:
            list.report(
                origin, "\(section.name("hashOn")) must be client, user, path, header:NAME or cookie:NAME, not \"\(text)\"")
        }
        if service.hashOn == .user {
            warn(origin, "\(section.name("hashOn")): user falls back to the client's address until identities are configured")
        }
    }

    // MARK: Instances

    private func readInstances(
        _ section: SectionReader, _ service: Configuration.Service
    ) -> [Configuration.Backend] {
        guard let value = section.value("instances") else {
            list.report(section.origin, "\(section.name("instances")) is missing: list the backends, such as http://localhost:8081")
            return []
        }
        guard case .sequence(let items) = value.content else {
            list.report(value.origin, "\(section.name("instances")) must be a list of URLs, not \(value.kind)")
            return []
        }
        if items.isEmpty { list.report(value.origin, "\(section.name("instances")) is empty: list at least one backend") }
        var backends: [Configuration.Backend] = []
        for (index, item) in items.enumerated() {
            let place = "\(section.name("instances"))[\(index)]"
            guard let backend = readInstance(item, place) else { continue }
            if backends.contains(where: { $0.url == backend.url }) {
                list.report(item.origin, "\(place): \(backend.url) is listed twice: give it a weight instead")
                continue
            }
            backends.append(backend)
        }
        checkWeights(backends, value.origin, section.name("instances"))
        return backends
    }

    private func checkWeights(_ backends: [Configuration.Backend], _ origin: Origin, _ name: String) {
        func divisor(_ a: Int, _ b: Int) -> Int { b == 0 ? a : divisor(b, a % b) }
        let common = backends.reduce(0) { divisor($0, $1.weight) }
        guard common > 0 else { return }
        let sum = backends.reduce(0) { $0 + $1.weight / common }
        // The schedule of weighted round robin is laid out whole.
        if sum > 65_535 {
            list.report(origin, "\(name): the weights, divided by their common divisor \(common), add up to \(sum): at most 65535")
        }
    }

    private func readInstance(_ item: Value, _ place: String) -> Configuration.Backend? {
        switch item.content {
        case .scalar(let text): return backend(text, item.origin, place)
        case .mapping:
            let section = SectionReader(item, path: place, list: list, fallback: item.origin)
            defer { section.finish() }
            var weight = 1
            section.integer("weight", &weight, in: 1...65_535)
            guard let (text, origin) = section.text("url") else {
                list.report(item.origin, "\(place).url is missing")
                return nil
            }
            var backend = backend(text, origin, place)
            backend?.weight = weight
            return backend
        case .null, .sequence:
            list.report(item.origin, "\(place) must be a URL, or a mapping of url and weight, not \(item.kind)")
            return nil
        }
    }

    private func backend(_ text: String, _ origin: Origin, _ place: String) -> Configuration.Backend? {
        func refused(_ message: String) -> Configuration.Backend? {
            list.report(origin, "\(place): \(message)")
            return nil
        }
        if text.hasPrefix("https://") {
            return refused("TLS to backends is not supported yet: write http:// for \"\(text)\"")
        }
        guard text.hasPrefix("http://") else { return refused("\"\(text)\" is no URL: write http://host:port") }
        var rest = text.dropFirst("http://".count)
        while rest.hasSuffix("/") { rest = rest.dropLast() }
        if rest.contains("@") { return refused("a URL with user info is not supported: \"\(text)\"") }
        if rest.contains("/") || rest.contains("?") || rest.contains("#") {
            return refused("an instance is a host and a port; \"\(text)\" has a path, which belongs to the service")
        }
        let url = "http://\(rest)"
        var host = rest
        var port: UInt16 = 80
        if let colon = rest.lastIndex(of: ":"), !rest[colon...].contains("]") {
            host = rest[..<colon]
            let digits = rest[rest.index(after: colon)...]
            guard digits.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let number = UInt16(digits), number > 0 else {
                return refused("the port of \"\(text)\" is not between 1 and 65535")
            }
            port = number
        }
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = host.dropFirst().dropLast()
            guard IPAddress(host) != nil else { return refused("\"\(host)\" is no IPv6 address") }
        } else {
            let allowed = host.utf8.allSatisfy { byte in
                byte >= 0x30 && byte <= 0x39 || byte | 0x20 >= 0x61 && byte | 0x20 <= 0x7a || byte == UInt8(ascii: "-")
                    || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "_")
            }
            guard allowed, (1...253).contains(host.utf8.count) else { return refused("\"\(text)\" names no host") }
        }
        return Configuration.Backend(url: url, host: String(host), port: port)
    }

    // MARK: Health

    private func readHealth(_ section: SectionReader) -> Configuration.Health {
        var health = Configuration.Health()
        section.flag("active", &health.active)
        if let (text, origin) = section.text("path") {
            if text.hasPrefix("/"), text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: "#") }) {
                health.path = text
            } else {
                list.report(origin, "\(section.name("path")) must be a path that begins with /, not \"\(text)\"")
            }
        }
        if let (text, origin) = section.text("method") {
            if ["GET", "HEAD", "OPTIONS", "POST"].contains(text) {
                health.method = text
            } else {
                list.report(origin, "\(section.name("method")) must be GET, HEAD, OPTIONS or POST, not \"\(text)\"")
            }
        }
        if let words = section.words("expect") {
            health.expect = words.compactMap { statusRange($0.text, $0.origin, section) }
            if words.isEmpty { list.report(section.origin(of: "expect"), "\(section.name("expect")) must name a status") }
        }
        section.duration("interval", &health.interval, from: .milliseconds(10))
        section.duration("warningInterval", &health.warningInterval, from: .milliseconds(10))
        section.duration("downInterval", &health.downInterval, from: .milliseconds(10))
        section.duration("timeout", &health.timeout, from: .milliseconds(1))
        section.integer("failures", &health.failures, in: 1...1_000_000)
        section.integer("successes", &health.successes, in: 1...1_000_000)
        section.duration("cooldown", &health.cooldown, from: .milliseconds(10))
        if let (text, origin) = section.text("quorum") {
            switch text {
            case "any": health.quorum = .any
            case "majority": health.quorum = .majority
            default:
                if let count = SectionReader.integer(text), (1...10_000).contains(count) {
                    health.quorum = .count(count)
                } else {
                    list.report(origin, "\(section.name("quorum")) must be any, majority or a number from 1, not \"\(text)\"")
                }
            }
        }
        section.finish()
        return health
    }

    /// `200`, `2xx`, or `200-299`.
    private func statusRange(_ text: String, _ origin: Origin, _ section: SectionReader) -> ClosedRange<Int>? {
        if text.count == 3, text.lowercased().hasSuffix("xx"), let first = text.first?.wholeNumberValue,
            (1...5).contains(first)
        {
            return first * 100...first * 100 + 99
        }
        let parts = text.split(separator: "-").compactMap { SectionReader.integer(String($0)) }
        if let first = parts.first, let last = parts.last, parts.count <= 2, first >= 100, last <= 599, first <= last,
            text.split(separator: "-").count == parts.count
        {
            return first...last
        }
        list.report(origin, "\(section.name("expect")) must be statuses such as 200, 2xx or 200-299, not \"\(text)\"")
        return nil
    }
}
