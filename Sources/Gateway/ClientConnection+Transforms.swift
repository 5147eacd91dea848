// Requests of services that change them: answered here, or rewritten on their way.

import Configuration
import EventLoop
import HTTP1
import Identity
import LinuxIO
import Primitives
import Tracing
import Transforms

extension ClientConnection {
    /// What a request of such a service gets before anything else is looked at; whether it is answered by that.
    ///
    /// Neither costs a client of its limits, as no other answer of the gateway's own does.
    func answersByItself(
        _ transforms: ServiceTransforms, _ head: borrowing RequestHead, _ bytes: Span<UInt8>
    ) -> Bool {
        let settings = transforms.settings
        let exchange = TransformedExchange(transforms)
        transformed = exchange
        let origin = settings.cors == nil ? nil : Self.only(head, bytes, "origin")
        let isAllowed = writeLines(exchange, head, bytes, origin)
        if settings.compression != nil {
            var accepted = AcceptEncoding()
            for field in head.fields {
                if Self.isNamed(bytes, field.name, "accept-encoding") {
                    accepted.read(bytes.extracting(field.value))
                } else if Self.isNamed(bytes, field.name, "if-none-match") {
                    for i in field.value { exchange.knownTags.append(bytes[i]) }
                }
            }
            exchange.wantsGzip = accepted.wantsGzip && version == .http11
        }

        // Whoever asks whether he may ask carries no name, so he comes before all that asks for one.
        if let cors = settings.cors, head.method == .options, origin != nil,
            Self.only(head, bytes, "access-control-request-method") != nil
        {
            guard isAllowed else {
                refuse(.originNotAllowed)
                return true
            }
            answerPreflight(cors)
            return true
        }
        if let maintenance = settings.maintenance, !maintenance.allow.contains(where: { $0.contains(client) }) {
            answerMaintenance(maintenance)
            return true
        }
        for redirect in settings.redirects where answerRedirect(redirect, head, bytes) { return true }
        return false
    }

    /// Who asks is known by now: answers may speak of it.
    func renewLines(_ head: borrowing RequestHead, _ bytes: Span<UInt8>) {
        guard let exchange = transformed, exchange.transforms.tellsCaller else { return }
        let origin = exchange.transforms.settings.cors == nil ? nil : Self.only(head, bytes, "origin")
        _ = writeLines(exchange, head, bytes, origin)
    }

    /// Writes what answers get; whether a page of that origin may read them.
    private func writeLines(
        _ exchange: TransformedExchange, _ head: borrowing RequestHead, _ bytes: Span<UInt8>, _ origin: Range<Int>?
    ) -> Bool {
        let settings = exchange.transforms.settings
        var lines = ByteBuffer()
        for field in settings.response.set { appendLine(field, head, bytes, to: &lines) }
        exchange.linesInPlace = lines.array
        lines.clear()
        for field in settings.response.add { appendLine(field, head, bytes, to: &lines) }
        let isAllowed = settings.cors.map { appendCORS($0, origin, bytes, to: &lines) } ?? false
        exchange.linesBeside = lines.array
        return isAllowed
    }

    // MARK: Requests

    /// Changes a head that has been written for a backend; why it is refused instead.
    func transformRequest(
        _ transforms: ServiceTransforms, _ head: borrowing RequestHead, _ bytes: Span<UInt8>,
        _ written: inout ByteBuffer
    ) -> Refusal? {
        let settings = transforms.settings
        if !settings.rewrites.isEmpty, let refusal = rewritePath(settings.rewrites, head, bytes, &written) {
            return refusal
        }
        guard !settings.request.isEmpty else { return nil }
        let old = written.take()
        written.reserve(old.count + 256)
        copyHead(old.bytes, dropping: transforms.requestDropped, to: &written)
        for field in settings.request.set { appendLine(field, head, bytes, to: &written) }
        for field in settings.request.add { appendLine(field, head, bytes, to: &written) }
        return nil
    }

    private func rewritePath(
        _ rules: [Configuration.PathRule], _ head: borrowing RequestHead, _ bytes: Span<UInt8>,
        _ written: inout ByteBuffer
    ) -> Refusal? {
        let start = head.methodBytes.count + 1
        var end = start
        let old = written.take()
        while end < old.count, old.bytes[end] != UInt8(ascii: "?"), old.bytes[end] != UInt8(ascii: " ") { end += 1 }
        let path = old.bytes.extracting(start..<end)
        written.append(old.bytes.extracting(0..<start))
        for rule in rules {
            guard let match = Self.match(rule.match, path) else { continue }
            append(rule.to, head, bytes, path, match, to: &written)
            let length = written.count - start
            // What a pattern puts together can be a dot segment that no part of it was.
            if PathHazard(path: written.bytes.extracting(start..<written.count)).escapes { return .pathEscapes }
            guard length <= DataPathLimits.rewrittenPathBytesMax else {
                return .malformed(Violation(.startLineTooLong, at: 0))
            }
            written.append(old.bytes.extracting(end..<old.count))
            return nil
        }
        written.append(old.bytes.extracting(start..<old.count))
        return nil
    }

    /// The groups of a pattern, and where the rest behind a prefix begins.
    private struct PathFound {
        var captures: [Range<Int>] = []
        var rest = 0
    }

    private static func match(_ match: Configuration.PathMatch, _ path: Span<UInt8>) -> PathFound? {
        switch match {
        case .prefix(let prefix):
            let prefix = prefix.utf8
            guard prefix.count <= path.count, prefix.count == path.count || path[prefix.count] == UInt8(ascii: "/")
            else { return nil }
            for (i, byte) in prefix.enumerated() where path[i] != byte { return nil }
            return PathFound(rest: prefix.count)
        case .pattern(let pattern):
            var found = PathFound()
            return pattern.match(path, captures: &found.captures) ? found : nil
        }
    }

    // MARK: Templates

    private func appendLine(
        _ field: Configuration.HeaderEdits.Field, _ head: borrowing RequestHead, _ bytes: Span<UInt8>,
        to output: inout ByteBuffer
    ) {
        output.append(field.name)
        output.append(": ")
        append(field.value, head, bytes, Span(), PathFound(), to: &output)
        output.append("\r\n")
    }

    private func append(
        _ template: Template, _ head: borrowing RequestHead, _ bytes: Span<UInt8>, _ path: Span<UInt8>,
        _ found: PathFound, to output: inout ByteBuffer
    ) {
        for part in template.parts {
            switch part {
            case .text(let text): output.append(text)
            case .group(let group):
                if group < found.captures.count { output.append(path.extracting(found.captures[group])) }
            case .rest: output.append(path.extracting(found.rest..<path.count))
            case .variable(let variable): append(variable, head, bytes, to: &output)
            }
        }
    }

    /// None of these holds a line end: the parser has let nothing through that does.
    private func append(
        _ variable: TemplateVariable, _ head: borrowing RequestHead, _ bytes: Span<UInt8>,
        to output: inout ByteBuffer
    ) {
        switch variable {
        case .client: output.append(client)
        case .scheme: output.append(clientScheme == .https || head.isHTTPS ? "https" : "http")
        case .host: output.append(bytes.extracting(head.authority))
        case .hostname:
            let host = bytes.extracting(head.authority)
            var end = host.count
            while end > 0, host[end - 1] >= 0x30, host[end - 1] <= 0x39 { end -= 1 }
            output.append(end > 0 && host[end - 1] == UInt8(ascii: ":") ? host.extracting(0..<end - 1) : host)
        case .method: output.append(bytes.extracting(head.methodBytes))
        case .path: output.append(bytes.extracting(head.path))
        case .query: appendQuery(head, bytes, to: &output)
        case .service: if let service { output.append(service.nameBytes) }
        case .user: if let names = callerNames { output.append(names.user) }
        case .org: if let names = callerNames { output.append(names.org) }
        case .tier: if let names = callerNames { output.append(names.tier) }
        case .apiKey: if let names = callerNames { output.append(names.key) }
        case .requestID: if let marks, marks.hasID { marks.appendID(to: &output) }
        case .traceID: if let trace = marks?.trace { output.append(trace.id) }
        }
    }

    private var callerNames: CallerNames? { worker.node.authenticates ? caller?.names : nil }

    // MARK: Answers of the gateway's own

    /// Sends an answer with the lines of this request's transforms.
    private func answer(_ status: Int, fields: borrowing ByteBuffer, body: Span<UInt8>) {
        let keep = keepsConnection(nil)
        self.status = status
        var all = ByteBuffer()
        all.append(worker.date())
        if let marks { marks.appendResponseLines(to: &all) }
        if let transformed { all.append(transformed.linesBeside) }
        all.append(fields.bytes)
        var output = worker.output.take()
        output.clear()
        output.appendResponse(
            status: status, reason: reasonPhrase(status), fields: all.bytes, body: body,
            options: ownOptions(keep: keep))
        if let transformed { insertLines(transformed.linesInPlace.span, into: &output) }
        sendOwn(&output, keep: keep)
    }

    private func answerMaintenance(_ maintenance: Configuration.Maintenance) {
        transformed?.isUnderMaintenance = true
        guard let body = maintenance.body else {
            refuse(.maintenance(status: maintenance.status, retryAfter: maintenance.retryAfter))
            return
        }
        var fields = ByteBuffer()
        if let span = maintenance.retryAfter { fields.appendRetryAfter(span) }
        fields.append("Cache-Control: no-store\r\nContent-Type: ")
        fields.append(body.contentType)
        fields.append("\r\n")
        answer(maintenance.status, fields: fields, body: body.bytes.span)
    }

    private func answerRedirect(
        _ redirect: Configuration.Redirect, _ head: borrowing RequestHead, _ bytes: Span<UInt8>
    ) -> Bool {
        let path = bytes.extracting(head.path)
        guard let found = Self.match(redirect.rule.match, path) else { return false }
        guard !head.authority.isEmpty || !redirect.rule.to.leadsToHost else {
            refuse(.malformed(Violation(.missingHost, at: 0)))
            return true
        }
        var location = ByteBuffer()
        append(redirect.rule.to, head, bytes, path, found, to: &location)
        // `//evil.test` names a host to browsers: a target that begins with a slash stays here.
        while location.count > 1, location.bytes[0] == UInt8(ascii: "/"), location.bytes[1] == UInt8(ascii: "/") {
            location.consume(1)
        }
        var fields = ByteBuffer()
        fields.append("Location: ")
        fields.append(location.bytes)
        fields.append("\r\n")
        answer(redirect.status, fields: fields, body: Span())
        return true
    }

    // MARK: CORS

    /// Writes what a browser needs to know; whether the origin may read answers.
    private func appendCORS(
        _ cors: Configuration.CORS, _ origin: Range<Int>?, _ bytes: Span<UInt8>, to lines: inout ByteBuffer
    ) -> Bool {
        let isAny = cors.origins.contains { $0.isAny }
        if isAny {
            // All get the same, also who names no origin: a cache may hand that answer to a page.
            lines.append("Access-Control-Allow-Origin: *\r\n")
        } else {
            // Answers differ by origin, also those to requests that name none: a cache must not mix them up.
            lines.append("Vary: Origin\r\n")
            guard let origin, cors.origins.contains(where: { $0.matches(bytes.extracting(origin)) }) else {
                return false
            }
            lines.append("Access-Control-Allow-Origin: ")
            lines.append(bytes.extracting(origin))
            lines.append("\r\n")
        }
        if cors.credentials { lines.append("Access-Control-Allow-Credentials: true\r\n") }
        if method != .options { lines.appendList("Access-Control-Expose-Headers: ", cors.expose) }
        return true
    }

    private func answerPreflight(_ cors: Configuration.CORS) {
        var fields = ByteBuffer()
        fields.appendList("Access-Control-Allow-Methods: ", cors.methods)
        fields.appendList("Access-Control-Allow-Headers: ", cors.headers)
        fields.append("Access-Control-Max-Age: ")
        fields.append(decimal: Int(cors.maxAge.milliseconds / 1_000))
        fields.append("\r\n")
        answer(200, fields: fields, body: Span())
    }

    // MARK: Fields

    static func isNamed(_ bytes: Span<UInt8>, _ name: Range<Int>, _ word: StaticString) -> Bool {
        guard name.count == word.utf8CodeUnitCount else { return false }
        var i = name.lowerBound
        for byte in word.description.utf8 {
            guard bytes[i] | 0x20 == byte || bytes[i] == byte else { return false }
            i += 1
        }
        return true
    }

    /// The value of a field that is there once.
    private static func only(_ head: borrowing RequestHead, _ bytes: Span<UInt8>, _ word: StaticString) -> Range<Int>? {
        var found: Range<Int>?
        for field in head.fields where isNamed(bytes, field.name, word) {
            if found != nil { return nil }
            found = field.value
        }
        return found
    }
}

extension ByteBuffer {
    fileprivate mutating func appendList(_ name: StaticString, _ values: [String]) {
        guard !values.isEmpty else { return }
        append(name)
        for (index, value) in values.enumerated() {
            if index > 0 { append(", ") }
            append(value)
        }
        append("\r\n")
    }

    mutating func appendRetryAfter(_ span: TimeSpan) {
        append("Retry-After: ")
        append(decimal: Int((span.milliseconds + 999) / 1_000))
        append("\r\n")
    }
}
