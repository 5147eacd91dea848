/// A request method (RFC 9110 §9, RFC 5789). Methods are case-sensitive: `get` is `other`.
public enum Method: UInt8, Sendable {
    case get, head, post, put, delete, patch, options, trace, connect, other

    /// Whether the client asks for no change of state (RFC 9110 §9.2.1).
    public var isSafe: Bool {
        switch self {
        case .get, .head, .options, .trace: true
        case .post, .put, .delete, .patch, .connect, .other: false
        }
    }

    /// Whether several identical requests have the effect of one, so that a failed one may be sent again
    /// (RFC 9110 §9.2.2).
    public var isIdempotent: Bool {
        switch self {
        case .get, .head, .options, .trace, .put, .delete: true
        case .post, .patch, .connect, .other: false
        }
    }

    /// The method whose bytes are packed into a word, first byte highest. Only the last eight bytes are there, so the
    /// length is needed too.
    @inline(__always)
    init(packed word: UInt64, length: Int) {
        guard length <= 8 else {
            self = .other
            return
        }
        self =
            switch word {
            case 0x47_45_54: .get
            case 0x48_45_41_44: .head
            case 0x50_4f_53_54: .post
            case 0x50_55_54: .put
            case 0x44_45_4c_45_54_45: .delete
            case 0x50_41_54_43_48: .patch
            case 0x4f_50_54_49_4f_4e_53: .options
            case 0x54_52_41_43_45: .trace
            case 0x43_4f_4e_4e_45_43_54: .connect
            default: .other
            }
    }
}

/// The versions that this codec reads. Anything else is refused with 505.
public enum HTTPVersion: UInt8, Sendable {
    case http10, http11
}
