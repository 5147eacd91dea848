// Responses that the gateway makes itself.

package import LinuxIO

/// What is added to the fields of a response, or left out of it.
package struct ResponseOptions: OptionSet, Sendable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Says `Connection: close`: the connection ends behind the response.
    package static let close = ResponseOptions(rawValue: 1)
    /// Says `Connection: keep-alive`, which an HTTP/1.0 client needs to hear (RFC 9112 §9.3).
    package static let keepAlive = ResponseOptions(rawValue: 2)
    /// Announces the body and does not send it, as for HEAD (RFC 9110 §9.3.2).
    package static let head = ResponseOptions(rawValue: 4)
}

extension ByteBuffer {
    /// Appends a complete response. `fields` are whole lines with their line ends; Content-Length and the options are
    /// added to them. Not for 1xx, 204 and 304, which have no Content-Length.
    package mutating func appendResponse(
        status: Int, reason: StaticString, fields: Span<UInt8>, body: Span<UInt8>, options: ResponseOptions = []
    ) {
        appendStatusLine(status: status, reason: reason)
        append(fields)
        endHead(contentLength: body.count, options)
        if !options.contains(.head) { append(body) }
    }

    /// Appends a complete response with a problem of RFC 9457 as its body. `status`: 100...999. `code` names the problem
    /// for programs, in lower case with hyphens; `title` and `detail` are for people: plain ASCII without quotes,
    /// backslashes and controls. An empty code or detail is left out. `members` follow as they are, each with its comma in
    /// front; `fields` and `date` are whole lines.
    package mutating func appendProblem(
        status: Int, title: StaticString, code: StaticString = "", detail: StaticString = "",
        members: Span<UInt8> = Span(), fields: Span<UInt8> = Span(), date: Span<UInt8> = Span(),
        options: ResponseOptions = []
    ) {
        appendStatusLine(status: status, reason: reasonPhrase(status))
        append(date)
        append(fields)
        append("Content-Type: application/problem+json\r\n")
        let opening: StaticString = "{\"title\":\""
        let middle: StaticString = "\",\"status\":"
        let name: StaticString = ",\"code\":\""
        let explanation: StaticString = ",\"detail\":\""
        var length = opening.utf8CodeUnitCount + title.utf8CodeUnitCount + middle.utf8CodeUnitCount + 3 + 2
        length += members.count
        if code.utf8CodeUnitCount > 0 { length += name.utf8CodeUnitCount + code.utf8CodeUnitCount + 1 }
        if detail.utf8CodeUnitCount > 0 {
            length += explanation.utf8CodeUnitCount + detail.utf8CodeUnitCount + 1
        }
        endHead(contentLength: length, options)
        guard !options.contains(.head) else { return }
        append(opening)
        append(title)
        append(middle)
        append(decimal: status)
        appendMember(name, code)
        appendMember(explanation, detail)
        append(members)
        append("}\n")
    }

    private mutating func appendMember(_ opening: StaticString, _ value: StaticString) {
        guard value.utf8CodeUnitCount > 0 else { return }
        append(opening)
        append(value)
        append("\"")
    }

    /// Appends the response to a request that breaks a rule. What follows such a request cannot be trusted, so the
    /// connection closes.
    package mutating func appendRefusal(_ rule: Rule, options: ResponseOptions = []) {
        appendProblem(
            status: rule.status, title: rule.title, code: rule.code, detail: rule.detail, options: options.union(.close)
        )
    }

    private mutating func endHead(contentLength: Int, _ options: ResponseOptions) {
        append("Content-Length: ")
        append(decimal: contentLength)
        append("\r\n")
        if options.contains(.close) {
            append("Connection: close\r\n")
        } else if options.contains(.keepAlive) {
            append("Connection: keep-alive\r\n")
        }
        append("\r\n")
    }
}

/// The phrase of RFC 9110 §15 (and RFC 6585) for the statuses that the gateway sends of its own; empty for others.
package func reasonPhrase(_ status: Int) -> StaticString {
    switch status {
    case 100: "Continue"
    case 101: "Switching Protocols"
    case 200: "OK"
    case 202: "Accepted"
    case 204: "No Content"
    case 301: "Moved Permanently"
    case 302: "Found"
    case 303: "See Other"
    case 304: "Not Modified"
    case 307: "Temporary Redirect"
    case 308: "Permanent Redirect"
    case 400: "Bad Request"
    case 401: "Unauthorized"
    case 403: "Forbidden"
    case 404: "Not Found"
    case 405: "Method Not Allowed"
    case 408: "Request Timeout"
    case 409: "Conflict"
    case 411: "Length Required"
    case 413: "Content Too Large"
    case 414: "URI Too Long"
    case 415: "Unsupported Media Type"
    case 417: "Expectation Failed"
    case 421: "Misdirected Request"
    case 422: "Unprocessable Content"
    case 426: "Upgrade Required"
    case 429: "Too Many Requests"
    case 431: "Request Header Fields Too Large"
    case 500: "Internal Server Error"
    case 501: "Not Implemented"
    case 502: "Bad Gateway"
    case 503: "Service Unavailable"
    case 504: "Gateway Timeout"
    case 505: "HTTP Version Not Supported"
    default: ""
    }
}
