// The section `transforms` of a service: which keys there are, and what each may hold.

import HTTP1
import Primitives
import Transforms

extension Configuration.Transforms {
    /// `nil` where nothing is to be done, so that the data path has nothing to look at.
    static func read(_ map: MappingReader) -> Configuration.Transforms? {
        guard let section = map.optionalSection("transforms") else { return nil }
        let transforms = Configuration.Transforms(section)
        section.finish()
        return transforms
    }

    private init(_ map: MappingReader) {
        let cors = map.optionalSection("cors").map { Configuration.CORS($0) }
        self.cors = cors
        map.noteIfAbsent("compression", as: Secrets.none)
        compression = map.has("compression") ? Configuration.Compression.read(map) : nil
        request = Configuration.HeaderEdits(map.section("request"), of: .request, cors: false)
        response = Configuration.HeaderEdits(map.section("response"), of: .response, cors: cors != nil)
        rewrites = Configuration.PathRule.list(map, "rewrite") { inner in Configuration.PathRule(inner, .path) }
        redirects = Configuration.PathRule.list(map, "redirects") { inner in
            let status = inner.read("status", default: 308) { text throws(Invalid) in
                let status = try integer(text, in: 300...399)
                guard [301, 302, 303, 307, 308].contains(status) else {
                    throw Invalid("\(quoted(text)) is no redirect; write 301, 302, 303, 307 or 308")
                }
                return status
            }
            return Configuration.PathRule(inner, .location).map { Configuration.Redirect(rule: $0, status: status) }
        }
        maintenance = map.optionalSection("maintenance").flatMap { Configuration.Maintenance.read($0) }
    }
}

extension Configuration.HeaderEdits {
    enum Side { case request, response }

    /// What frames a message, concerns one connection, or is the gateway's own to say: changed, it would let one message
    /// pass for two, or a client for another one.
    private static let reserved: Set<String> = [
        "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
        "upgrade",
        "via", "expect", "max-forwards", "forwarded", "x-forwarded-for", "x-origin-host", "content-encoding",
        "content-range", "proxy-authenticate", "proxy-authorization", "date",
    ]

    init(_ map: MappingReader, of side: Side, cors: Bool) {
        func check(_ text: String) throws(Invalid) -> String {
            let name = try token(text, max: Bounds.nameBytesMax)
            let folded = String(
                decoding: name.lowercased().utf8.map { isAlphanumeric($0) ? $0 : UInt8(ascii: "-") }, as: UTF8.self)
            if folded == "host", side == .request {
                throw Invalid("`Host` is hostHeader's to choose; remove it here")
            }
            if Self.reserved.contains(folded) {
                throw Invalid("\(quoted(text)) frames messages or is the gateway's own; it can not be changed")
            }
            if side == .response, folded.hasPrefix("sec-websocket-") {
                throw Invalid("\(quoted(text)) is the handshake's of a WebSocket; remove it here")
            }
            if cors, folded.hasPrefix("access-control-") {
                throw Invalid("\(quoted(text)) is set by cors; remove one of the two")
            }
            return name
        }
        func fields(_ key: String) -> [Field] {
            let inner = map.table(key)
            var seen: Set<String> = []
            let pairs = inner.pairs(max: Bounds.headerEditsMax)
            return pairs.compactMap { pair in
                // Outside of what parses, which may be asked more than once.
                let isRepeated = !seen.insert(pair.name.lowercased()).inserted
                let field: Field? = inner.read(pair.name, default: nil) { text throws(Invalid) in
                    let name = try check(pair.name)
                    guard !isRepeated else {
                        throw Invalid("\(quoted(pair.name)) is there already in another case; write it once")
                    }
                    return Field(name: name, value: try headerValue(text))
                }
                return field
            }
        }
        set = fields("set")
        add = fields("add")
        remove = map.readList("remove", default: [], max: Bounds.headerEditsMax, check)
        map.finish()
    }
}

/// A value of a header: no line end and no other control character, so that it stays one line (RFC 9110 §5.5).
private func headerValue(_ text: String) throws(Invalid) -> Template {
    guard text.utf8.count <= Bounds.templateBytesMax else {
        throw Invalid("longer than \(Bounds.templateBytesMax) bytes")
    }
    guard text.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7f || $0 == 0x09 }) else {
        throw Invalid("\(quoted(text)) has a control character; a header is one line")
    }
    return try template(text)
}

private func template(_ text: String, groups: Int = 0, hasRest: Bool = false) throws(Invalid) -> Template {
    do throws(TransformError) {
        return try Template(text, groups: groups, hasRest: hasRest)
    } catch {
        throw Invalid("\(quoted(text)): \(error.message)")
    }
}

extension Configuration.PathRule {
    enum Target { case path, location }

    static func list<T>(_ map: MappingReader, _ key: String, _ read: (MappingReader) -> T?) -> [T] {
        map.noteIfAbsent(key, as: "[]")
        return (map.takeList(key, max: Bounds.pathRulesMax) ?? []).compactMap { element in
            let inner = MappingReader(element.value, path: element.path, diagnostics: map.diagnostics)
            defer { inner.finish() }
            return read(inner)
        }
    }

    /// `nil` after an error, which is reported then.
    init?(_ map: MappingReader, _ target: Target) {
        let prefix: String? = map.read("prefix", default: nil) { text throws(Invalid) in try pathPrefix(text) }
        let pattern: PathPattern? = map.read("pattern", default: nil) { text throws(Invalid) in
            guard text.utf8.count <= Bounds.patternBytesMax else {
                throw Invalid("longer than \(Bounds.patternBytesMax) bytes")
            }
            do throws(TransformError) {
                return try PathPattern(text)
            } catch {
                throw Invalid("\(quoted(text)) is no pattern: \(error.message)")
            }
        }
        let hasPrefix = map.has("prefix")
        let hasPattern = map.has("pattern")
        if hasPrefix == hasPattern {
            map.reportMissing(
                "prefix",
                hint: hasPrefix
                    ? "a rule has a prefix or a pattern; remove one" : "write one such as /old, or a pattern")
        }
        let to = map.readRequired("to", hint: target == .path ? "write a path" : "write a path or an address") {
            text throws(Invalid) in
            // Behind a wrong pattern nobody knows how many groups there are.
            if hasPattern, pattern == nil { return Optional<Template>.none }
            let to = try template(text, groups: pattern?.groups ?? 0, hasRest: prefix != nil)
            try Self.check(text, to, target)
            return to
        }
        if let pattern, let to = to ?? nil {
            match = .pattern(pattern)
            self.to = to
        } else if let prefix, let to = to ?? nil {
            match = .prefix(prefix == "/" ? "" : prefix)
            self.to = to
        } else {
            return nil
        }
    }

    /// What a client chooses must lead to no other host: a target begins with a slash, or with a scheme and a host that
    /// no group and no rest of a path is part of.
    private static func check(_ text: String, _ to: Template, _ target: Target) throws(Invalid) {
        guard text.utf8.count <= Bounds.templateBytesMax else {
            throw Invalid("longer than \(Bounds.templateBytesMax) bytes")
        }
        guard to.literals.allSatisfy({ $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: "\\") }) else {
            throw Invalid("\(quoted(text)) has a character that no address has; write it as %20 or the like")
        }
        if let variable = to.variables.first(where: \.isForHeaders) {
            throw Invalid("\(quoted(text)): {\(variable.rawValue)} can stand in headers alone; remove it here")
        }
        if case .text(let first)? = to.parts.first, first.first == UInt8(ascii: "/") {
            if target == .path, to.literals.contains(where: { $0 == UInt8(ascii: "?") || $0 == UInt8(ascii: "#") }) {
                throw Invalid("\(quoted(text)) has a query; a path is rewritten, and the query stays")
            }
            if first.starts(with: "//".utf8) {
                throw Invalid("\(quoted(text)) begins with two slashes, which name a host")
            }
            if target == .path, alwaysEscapes(to) {
                throw Invalid(
                    "\(quoted(text)) has a segment `.` or `..`, or a broken escape; write the path that is meant")
            }
            return
        }
        guard target == .location else {
            throw Invalid("\(quoted(text)) does not start with a slash; write one such as /new")
        }
        try checkAuthority(text, to)
    }

    /// Whether every path that the template gives would be refused, whatever the request fills in.
    private static func alwaysEscapes(_ to: Template) -> Bool {
        // Two letters may also end an escape that the text begins; the rest of a path is nothing, or begins with a slash.
        ["", "/aa"].allSatisfy { rest in
            let path = to.parts.flatMap { part -> [UInt8] in
                switch part {
                case .text(let text): text
                case .rest: Array(rest.utf8)
                case .variable(.path): Array("/aa".utf8)
                case .variable(.query): []
                case .variable, .group: Array("aa".utf8)
                }
            }
            return PathHazard(path: path.span).escapes
        }
    }

    private static func checkAuthority(_ text: String, _ to: Template) throws(Invalid) {
        let remedy = "\(quoted(text)) does not begin with / or with http:// or https:// and a host"
        var parts = to.parts[...]
        guard case .text(let first)? = parts.popFirst() else { throw Invalid(remedy) }
        let scheme = ["https://", "http://"].map { Array($0.utf8) }.first { first.starts(with: $0) }
        guard let scheme else { throw Invalid(remedy) }
        func ends(_ text: ArraySlice<UInt8>) -> Bool { text.contains { "/?#".utf8.contains($0) } }
        let authority = first[scheme.count...]
        if ends(authority) {
            guard authority.first != UInt8(ascii: "/") else { throw Invalid(remedy) }
            return
        }
        var isEmpty = authority.isEmpty
        for part in parts {
            switch part {
            case .text(let more):
                if ends(more[...]) { return }
                isEmpty = false
            case .variable(.host), .variable(.hostname): isEmpty = false
            // These begin with a slash, or are empty.
            case .rest, .variable(.path): if !isEmpty { return }
            case .variable, .group:
                throw Invalid(
                    "\(quoted(text)): a client would choose the host; write a slash before what the path gives")
            }
        }
        if isEmpty { throw Invalid(remedy) }
    }
}

extension Configuration.CORS {
    init(_ map: MappingReader) {
        let origins: [OriginPattern] = map.readList("origins", default: [], max: Bounds.corsListMax) {
            text throws(Invalid) in
            do throws(TransformError) {
                return try OriginPattern(text)
            } catch {
                throw Invalid("\(quoted(text)) \(error.message)")
            }
        }
        if !map.has("origins") { map.reportMissing("origins", hint: "write a list such as [https://app.example.com]") }
        let credentials = map.read("credentials", default: false, boolean)
        // Fetch: with credentials `*` is a name like any other, and a gateway that echoed any origin instead would let
        // every site act in its visitors' name.
        if credentials, origins.contains(where: \.isAny) {
            map.report("any origin, with credentials; list the origins that may act for their users", at: "origins")
        }
        if origins.count > 1, origins.contains(where: \.isAny) {
            map.report("`*` is any origin; remove the others, or it", at: "origins")
        }
        methods = map.readList("methods", default: ["GET", "HEAD", "POST"], max: Bounds.methodsMax) {
            text throws(Invalid) in try Self.name(text, credentials)
        }
        headers = map.readList("headers", default: [], max: Bounds.corsListMax) { text throws(Invalid) in
            try Self.name(text, credentials)
        }
        expose = map.readList("expose", default: [], max: Bounds.corsListMax) { text throws(Invalid) in
            try Self.name(text, credentials)
        }
        maxAge = map.read("maxAge", default: Defaults.corsMaxAge) { text throws(Invalid) in
            try duration(text, in: .zero...Bounds.timeoutMax)
        }
        self.origins = origins
        self.credentials = credentials
        map.finish()
    }

    private static func name(_ text: String, _ credentials: Bool) throws(Invalid) -> String {
        if text == "*", credentials {
            throw Invalid("`*` means nothing with credentials; write the names")
        }
        return try token(text, max: Bounds.nameBytesMax)
    }
}

extension Configuration.Compression {
    /// `compression: true`, or a section.
    static func read(_ map: MappingReader) -> Configuration.Compression? {
        if let value = map.take("compression"), case .scalar = value.content {
            let isOn = map.read("compression", default: false, boolean)
            return isOn
                ? Configuration.Compression(
                    types: MediaTypes(Defaults.compressedTypes), minBytes: Defaults.compressedMin,
                    level: Defaults.compressionLevel) : nil
        }
        return Configuration.Compression(map.section("compression"))
    }

    private init(_ map: MappingReader) {
        let types = map.readList("types", default: Defaults.compressedTypes, max: Bounds.corsListMax) {
            text throws(Invalid) in
            let parts = text.split(separator: "/", omittingEmptySubsequences: false)
            guard parts.count == 2, !parts[0].contains("*"),
                (try? token(String(parts[0]), max: Bounds.nameBytesMax)) != nil,
                (try? token(String(parts[1]), max: Bounds.nameBytesMax)) != nil,
                parts[1] == "*" || !parts[1].contains("*")
            else { throw Invalid("\(quoted(text)) is no media type; write one such as application/json or text/*") }
            return text
        }
        self.types = MediaTypes(types)
        minBytes = map.read("minBytes", default: Defaults.compressedMin) { text throws(Invalid) in
            try sizeOrNone(text)?.bytes ?? 0
        }
        level = map.read("level", default: Defaults.compressionLevel) { text throws(Invalid) in
            try integer(text, in: 1...9)
        }
        map.finish()
    }
}

extension Configuration.Maintenance {
    /// `nil` where it is not active.
    static func read(_ map: MappingReader) -> Configuration.Maintenance? {
        let isActive = map.read("active", default: true, boolean)
        let maintenance = Configuration.Maintenance(map)
        map.finish()
        return isActive ? maintenance : nil
    }

    private init(_ map: MappingReader) {
        status = map.read("status", default: 503) { text throws(Invalid) in try integer(text, in: 400...599) }
        retryAfter = map.read("retryAfter", default: nil) { text throws(Invalid) in
            try duration(text, in: .seconds(1)...Bounds.timeoutMax)
        }
        allow = map.readList("allow", default: [], max: Bounds.trustedProxiesMax, cidr)
        let text: [UInt8]? = map.read("text", default: nil) { text throws(Invalid) in Array(text.utf8) }
        let file: (bytes: [UInt8], path: String)? = map.read("file", default: nil) { path throws(Invalid) in
            do throws(ConfigurationError) {
                return (Array(try ConfigurationFile.read(path, remedy: "give the path of one").utf8), path)
            } catch {
                throw Invalid("\(quoted(path)): \(error.message)")
            }
        }
        if text != nil, file != nil { map.report("there is a file already; remove one of the two", at: "text") }
        let type: String? = map.read("contentType", default: nil) { text throws(Invalid) in
            guard text.contains("/"), text.utf8.count <= Bounds.nameBytesMax,
                text.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7f })
            else { throw Invalid("\(quoted(text)) is no media type; write one such as text/html") }
            return text
        }
        if let file {
            body = Body(bytes: file.bytes, contentType: type ?? Self.contentType(of: file.path))
        } else if let text {
            body = Body(bytes: text, contentType: type ?? "text/plain; charset=utf-8")
        } else {
            body = nil
        }
    }

    private static func contentType(of path: String) -> String {
        if path.hasSuffix(".html") { return "text/html; charset=utf-8" }
        if path.hasSuffix(".json") { return "application/json" }
        return "text/plain; charset=utf-8"
    }
}
