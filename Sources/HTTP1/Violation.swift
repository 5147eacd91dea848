/// A rule of HTTP/1.1 that a message breaks, and where.
package struct Violation: Equatable, Sendable {
    package let rule: Rule
    /// Bytes from the beginning of what was parsed.
    package let offset: Int

    package init(_ rule: Rule, at offset: Int) {
        self.rule = rule
        self.offset = offset
    }
}

/// The rules, each with the status that its breach is answered with and a sentence that names it.
package enum Rule: UInt8, Sendable, CaseIterable {
    case requestLine, method, target, connect, version, versionUnsupported, requestLineLength
    case statusLine
    case lineEnding, fieldName, fieldValue, whitespaceBeforeColon, lineFolding, headerBytes, headerCount
    case hostMissing, hostRepeated, hostMalformed
    case contentLengthMalformed, contentLengthRepeated, lengthAndCoding
    case codingUnknown, codingNotFinal, codingInHTTP10
    case chunkSize, chunkExtension, chunkEnd, trailerField, trailerBytes

    package var status: Int {
        switch self {
        case .requestLine, .method, .target, .version, .statusLine, .lineEnding, .fieldName, .fieldValue,
            .whitespaceBeforeColon, .lineFolding, .hostMissing, .hostRepeated, .hostMalformed, .contentLengthMalformed,
            .contentLengthRepeated, .lengthAndCoding, .codingNotFinal, .codingInHTTP10, .chunkSize, .chunkExtension,
            .chunkEnd, .trailerField:
            400
        case .requestLineLength: 414
        case .headerBytes, .headerCount, .trailerBytes: 431
        case .connect, .codingUnknown: 501
        case .versionUnsupported: 505
        }
    }

    package var title: StaticString {
        switch status {
        case 414: "URI too long"
        case 431: "Request header fields too large"
        case 501: "Not implemented"
        case 505: "HTTP version not supported"
        default: "Bad request"
        }
    }

    package var detail: StaticString {
        switch self {
        case .requestLine: "the request line is not METHOD SP TARGET SP VERSION (RFC 9112 section 3)"
        case .method: "the method is not a token (RFC 9110 section 9.1)"
        case .target: "the request target is malformed (RFC 9112 section 3.2)"
        case .connect: "this gateway opens no tunnels by CONNECT (RFC 9110 section 9.3.6)"
        case .version: "the HTTP version is malformed (RFC 9112 section 2.3)"
        case .versionUnsupported: "only HTTP/1.0 and HTTP/1.1 are spoken here (RFC 9110 section 15.6.6)"
        case .requestLineLength: "the request line is longer than the limit (RFC 9112 section 3)"
        case .statusLine: "the status line is malformed (RFC 9112 section 4)"
        case .lineEnding: "a line does not end with CR LF (RFC 9112 section 2.2)"
        case .fieldName: "a field name is not a token (RFC 9110 section 5.1)"
        case .fieldValue: "a field value holds control characters (RFC 9110 section 5.5)"
        case .whitespaceBeforeColon: "white space stands before a colon (RFC 9112 section 5.1)"
        case .lineFolding: "a field is folded over lines (RFC 9112 section 5.2)"
        case .headerBytes: "the header fields are larger than the limit (RFC 6585 section 5)"
        case .headerCount: "there are more header fields than the limit (RFC 6585 section 5)"
        case .hostMissing: "there is no Host (RFC 9112 section 3.2)"
        case .hostRepeated: "there is more than one Host (RFC 9112 section 3.2)"
        case .hostMalformed: "Host is malformed (RFC 9110 section 7.2)"
        case .contentLengthMalformed: "Content-Length is not one decimal number (RFC 9110 section 8.6)"
        case .contentLengthRepeated: "there is more than one Content-Length (RFC 9112 section 6.3)"
        case .lengthAndCoding: "both Content-Length and Transfer-Encoding are present (RFC 9112 section 6.1)"
        case .codingUnknown: "the transfer coding is not known here (RFC 9112 section 6.1)"
        case .codingNotFinal: "chunked is not the one and final transfer coding (RFC 9112 section 6.1)"
        case .codingInHTTP10: "HTTP/1.0 has no Transfer-Encoding (RFC 9112 section 6.1)"
        case .chunkSize: "a chunk size is not a hexadecimal number within bounds (RFC 9112 section 7.1)"
        case .chunkExtension: "a chunk extension is malformed or too long (RFC 9112 section 7.1.1)"
        case .chunkEnd: "a chunk does not end where its size says (RFC 9112 section 7.1)"
        case .trailerField: "a trailer field is malformed (RFC 9112 section 7.1.2)"
        case .trailerBytes: "the trailer section is larger than the limit (RFC 9112 section 7.1.2)"
        }
    }
}
