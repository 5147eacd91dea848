// Every reason for which a message is refused, named once: the status, the problem+json and the counters derive from
// the same enum.

/// A rule that was broken, and where.
package struct Violation: Error, Equatable, Sendable {
    package var rule: Rule
    /// Offset into the span that was parsed; never beyond its end.
    package var offset: Int

    package init(_ rule: Rule, at offset: Int) {
        self.rule = rule
        self.offset = offset
    }
}

/// What a message can do wrong. Requests are refused with `status`; a backend's response that breaks any rule is
/// answered with 502, whatever the rule.
package enum Rule: UInt8, CaseIterable, Sendable {
    // The start line
    case invalidMethod, methodTooLong, connectMethod
    case malformedRequestLine, malformedStatusLine, startLineTooLong, emptyLines
    case invalidTarget, targetForm, asteriskForm, unsupportedVersion
    // Field lines
    case bareLineFeed, bareCarriageReturn, foldedLine
    case emptyFieldName, invalidFieldName, whitespaceBeforeColon, missingColon, invalidFieldValue
    case headerBytes, headerCount
    // What fields say
    case missingHost, repeatedHost, malformedHost
    case malformedContentLength, repeatedContentLength
    case malformedTransferEncoding, chunkedNotFinal, unknownTransferCoding
    case transferEncodingWithContentLength, transferEncodingInHTTP10
    case malformedConnection, unknownExpectation, malformedMaxForwards
    // What the method allows
    case lengthRequired, traceWithBody, misdirected
    // The body
    case malformedChunkSize, chunkSizeTooLarge, malformedChunkExtension, chunkExtensionTooLong, malformedChunkEnd
    case bodyTooLarge
    // Time, found by the connection and not by the codec
    case headTimeout, bodyTimeout
}

extension Rule {
    /// The status code that answers a request which breaks the rule.
    package var status: Int {
        switch self {
        case .headTimeout, .bodyTimeout: 408
        case .lengthRequired: 411
        case .bodyTooLarge: 413
        case .startLineTooLong: 414
        case .unknownExpectation: 417
        case .misdirected: 421
        case .headerBytes, .headerCount: 431
        case .methodTooLong, .connectMethod, .unknownTransferCoding: 501
        case .unsupportedVersion: 505
        case .invalidMethod, .malformedRequestLine, .malformedStatusLine, .emptyLines, .invalidTarget, .targetForm,
            .asteriskForm, .bareLineFeed, .bareCarriageReturn, .foldedLine, .emptyFieldName, .invalidFieldName,
            .whitespaceBeforeColon, .missingColon, .invalidFieldValue, .missingHost, .repeatedHost, .malformedHost,
            .malformedContentLength, .repeatedContentLength, .malformedTransferEncoding, .chunkedNotFinal,
            .transferEncodingWithContentLength, .transferEncodingInHTTP10, .malformedConnection, .malformedMaxForwards,
            .traceWithBody, .malformedChunkSize, .chunkSizeTooLarge, .malformedChunkExtension, .chunkExtensionTooLong,
            .malformedChunkEnd:
            400
        }
    }

    /// The name of the rule for programs. It never changes, whatever becomes of the words below.
    package var code: StaticString {
        switch self {
        case .invalidMethod: "invalid-method"
        case .methodTooLong: "method-too-long"
        case .connectMethod: "connect-method"
        case .malformedRequestLine: "malformed-request-line"
        case .malformedStatusLine: "malformed-status-line"
        case .startLineTooLong: "start-line-too-long"
        case .emptyLines: "empty-lines"
        case .invalidTarget: "invalid-target"
        case .targetForm: "target-form"
        case .asteriskForm: "asterisk-form"
        case .unsupportedVersion: "unsupported-version"
        case .bareLineFeed: "bare-line-feed"
        case .bareCarriageReturn: "bare-carriage-return"
        case .foldedLine: "folded-line"
        case .emptyFieldName: "empty-field-name"
        case .invalidFieldName: "invalid-field-name"
        case .whitespaceBeforeColon: "whitespace-before-colon"
        case .missingColon: "missing-colon"
        case .invalidFieldValue: "invalid-field-value"
        case .headerBytes: "header-bytes"
        case .headerCount: "header-count"
        case .missingHost: "missing-host"
        case .repeatedHost: "repeated-host"
        case .malformedHost: "malformed-host"
        case .malformedContentLength: "malformed-content-length"
        case .repeatedContentLength: "repeated-content-length"
        case .malformedTransferEncoding: "malformed-transfer-encoding"
        case .chunkedNotFinal: "chunked-not-final"
        case .unknownTransferCoding: "unknown-transfer-coding"
        case .transferEncodingWithContentLength: "transfer-encoding-with-content-length"
        case .transferEncodingInHTTP10: "transfer-encoding-in-http10"
        case .malformedConnection: "malformed-connection"
        case .unknownExpectation: "unknown-expectation"
        case .malformedMaxForwards: "malformed-max-forwards"
        case .lengthRequired: "length-required"
        case .traceWithBody: "trace-with-body"
        case .misdirected: "misdirected"
        case .malformedChunkSize: "malformed-chunk-size"
        case .chunkSizeTooLarge: "chunk-size-too-large"
        case .malformedChunkExtension: "malformed-chunk-extension"
        case .chunkExtensionTooLong: "chunk-extension-too-long"
        case .malformedChunkEnd: "malformed-chunk-end"
        case .bodyTooLarge: "body-too-large"
        case .headTimeout: "head-timeout"
        case .bodyTimeout: "body-timeout"
        }
    }

    /// The title of the problem: what is wrong, in a few words.
    package var title: StaticString {
        switch self {
        case .invalidMethod: "Invalid method"
        case .methodTooLong: "Method too long"
        case .connectMethod: "CONNECT is not implemented"
        case .malformedRequestLine: "Malformed request line"
        case .malformedStatusLine: "Malformed status line"
        case .startLineTooLong: "Request line too long"
        case .emptyLines: "Empty lines before the request"
        case .invalidTarget: "Invalid character in the request target"
        case .targetForm: "Unsupported form of request target"
        case .asteriskForm: "Asterisk target without OPTIONS"
        case .unsupportedVersion: "HTTP version not supported"
        case .bareLineFeed: "Line feed without carriage return"
        case .bareCarriageReturn: "Carriage return without line feed"
        case .foldedLine: "Folded header line"
        case .emptyFieldName: "Empty field name"
        case .invalidFieldName: "Invalid character in a field name"
        case .whitespaceBeforeColon: "Whitespace before a colon"
        case .missingColon: "Header line without a colon"
        case .invalidFieldValue: "Control character in a field value"
        case .headerBytes: "Header too large"
        case .headerCount: "Too many header fields"
        case .missingHost: "Missing Host"
        case .repeatedHost: "Repeated Host"
        case .malformedHost: "Malformed Host"
        case .malformedContentLength: "Malformed Content-Length"
        case .repeatedContentLength: "Repeated Content-Length"
        case .malformedTransferEncoding: "Malformed Transfer-Encoding"
        case .chunkedNotFinal: "Transfer-Encoding does not end in one chunked"
        case .unknownTransferCoding: "Transfer coding not implemented"
        case .transferEncodingWithContentLength: "Transfer-Encoding and Content-Length"
        case .transferEncodingInHTTP10: "Transfer-Encoding in HTTP/1.0"
        case .malformedConnection: "Malformed Connection"
        case .unknownExpectation: "Unknown expectation"
        case .malformedMaxForwards: "Malformed Max-Forwards"
        case .lengthRequired: "Length required"
        case .traceWithBody: "TRACE with a body"
        case .misdirected: "Misdirected request"
        case .malformedChunkSize: "Malformed chunk size"
        case .chunkSizeTooLarge: "Chunk size too large"
        case .malformedChunkExtension: "Malformed chunk extension"
        case .chunkExtensionTooLong: "Chunk extension too long"
        case .malformedChunkEnd: "Chunk data does not end in a line end"
        case .bodyTooLarge: "Body too large"
        case .headTimeout: "Request head timed out"
        case .bodyTimeout: "Request body timed out"
        }
    }

    /// One sentence that names the rule and its source.
    package var detail: StaticString {
        switch self {
        case .invalidMethod: "A request begins with a method, which is a token (RFC 9110 section 9.1)."
        case .methodTooLong: "The method is longer than any that is implemented (RFC 9112 section 3)."
        case .connectMethod: "A gateway opens no tunnels (RFC 9110 section 9.3.6)."
        case .malformedRequestLine:
            "A request line is a method, a target and a version, separated by single spaces (RFC 9112 section 3)."
        case .malformedStatusLine: "A status line is a version, three digits and a reason (RFC 9112 section 4)."
        case .startLineTooLong: "The request line exceeds the configured limit (RFC 9112 section 3)."
        case .emptyLines: "At most one empty line may precede a request line (RFC 9112 section 2.2)."
        case .invalidTarget: "A request target is visible ASCII without a fragment (RFC 9112 section 3.2)."
        case .targetForm: "A target is a path or an http or https URI with a host (RFC 9112 section 3.2)."
        case .asteriskForm: "The target * belongs to OPTIONS alone (RFC 9112 section 3.2.4)."
        case .unsupportedVersion: "HTTP/1.1 and HTTP/1.0 are supported here (RFC 9110 section 15.6.6)."
        case .bareLineFeed: "A line ends in CR LF (RFC 9112 section 2.2)."
        case .bareCarriageReturn: "A CR stands only before an LF (RFC 9112 section 2.2)."
        case .foldedLine: "A header line must not begin with whitespace (RFC 9112 sections 2.2 and 5.2)."
        case .emptyFieldName: "A field name has at least one character (RFC 9110 section 5.1)."
        case .invalidFieldName: "A field name is a token (RFC 9110 section 5.1)."
        case .whitespaceBeforeColon: "No whitespace is allowed between field name and colon (RFC 9112 section 5.1)."
        case .missingColon: "A header line is a name, a colon and a value (RFC 9112 section 5)."
        case .invalidFieldValue: "A field value holds no control characters (RFC 9110 section 5.5)."
        case .headerBytes: "The header fields exceed the configured size (RFC 6585 section 5)."
        case .headerCount: "The header fields exceed the configured number (RFC 6585 section 5)."
        case .missingHost: "An HTTP/1.1 request has a Host field (RFC 9112 section 3.2)."
        case .repeatedHost: "A request has one Host field at most (RFC 9112 section 3.2)."
        case .malformedHost: "Host is a host name or address and an optional port (RFC 9110 section 7.2)."
        case .malformedContentLength: "Content-Length is one decimal number (RFC 9110 section 8.6)."
        case .repeatedContentLength: "A message has one Content-Length at most (RFC 9112 section 6.3)."
        case .malformedTransferEncoding: "Transfer-Encoding is a list of coding names (RFC 9112 section 6.1)."
        case .chunkedNotFinal: "The last coding, and no other, is chunked (RFC 9112 sections 6.1 and 6.3)."
        case .unknownTransferCoding: "chunked is the only implemented transfer coding (RFC 9112 section 6.1)."
        case .transferEncodingWithContentLength: "A message is framed by one of the two (RFC 9112 section 6.3)."
        case .transferEncodingInHTTP10: "HTTP/1.0 has no transfer codings (RFC 9112 section 6.1)."
        case .malformedConnection: "Connection is a short list of tokens (RFC 9110 section 7.6.1)."
        case .unknownExpectation: "100-continue is the only defined expectation (RFC 9110 section 10.1.1)."
        case .malformedMaxForwards: "Max-Forwards is one decimal number (RFC 9110 section 7.6.2)."
        case .lengthRequired: "A request of HTTP/1.0 with this method has a Content-Length (RFC 1945 section 8.3)."
        case .traceWithBody: "A TRACE request has no content (RFC 9110 section 9.3.8)."
        case .misdirected: "An https target is not served on this connection (RFC 9110 section 7.4)."
        case .malformedChunkSize: "A chunk begins with its size in hexadecimal digits (RFC 9112 section 7.1)."
        case .chunkSizeTooLarge: "A chunk size has up to 16 digits and fits 63 bits (RFC 9112 section 7.1)."
        case .malformedChunkExtension: "Extensions follow a semicolon and hold no controls (RFC 9112 section 7.1.1)."
        case .chunkExtensionTooLong: "The chunk extensions exceed what is accepted (RFC 9112 section 7.1.1)."
        case .malformedChunkEnd: "The data of a chunk ends in CR LF (RFC 9112 section 7.1)."
        case .bodyTooLarge: "The body exceeds the configured limit (RFC 9110 section 15.5.14)."
        case .headTimeout: "The head did not arrive in time (RFC 9110 section 15.5.9)."
        case .bodyTimeout: "The body made no progress in time (RFC 9110 section 15.5.9)."
        }
    }
}
