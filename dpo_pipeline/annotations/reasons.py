"""Why a record, or part of one, did not become a judgment or a demonstration."""

from enum import StrEnum


class Reason(StrEnum):
    """A reason code; `sentence` says what it means. Codes are stable: they stand in published tables."""

    # Files
    UNKNOWN_FILE_TYPE = "unknown_file_type"
    UNREADABLE_FILE = "unreadable_file"
    EMPTY_FILE = "empty_file"
    DUPLICATE_FILE = "duplicate_file"
    IGNORED_FILE = "ignored_file"
    UNSAFE_MEMBER = "unsafe_member"
    TRUNCATED_FILE = "truncated_file"
    DECOMPRESSION_BOMB = "decompression_bomb"
    FILE_TOO_LARGE = "file_too_large"
    # Records as bytes
    RECORD_TOO_LONG = "record_too_long"
    INVALID_UTF8 = "invalid_utf8"
    INVALID_JSON = "invalid_json"
    INVALID_CSV = "invalid_csv"
    BYTE_ORDER_MARK = "byte_order_mark"
    NOT_A_NUMBER = "not_a_number"
    LONE_SURROGATE = "lone_surrogate"
    NUL_CHARACTER = "nul_character"
    DUPLICATE_KEY = "duplicate_key"
    TOO_DEEP = "too_deep"
    NOT_AN_OBJECT = "not_an_object"
    WRONG_CELL_COUNT = "wrong_cell_count"
    FORMULA_CELL = "formula_cell"
    ABOVE_HEADER = "above_header"
    REPEATED_HEADER = "repeated_header"
    # Records as content
    UNKNOWN_FORMAT = "unknown_format"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    UNKNOWN_VERDICT = "unknown_verdict"
    UNKNOWN_ROLE = "unknown_role"
    ROLE_ORDER = "role_order"
    EMPTY_TURN = "empty_turn"
    EMPTY_RESPONSE = "empty_response"
    UNEQUAL_CONTEXTS = "unequal_contexts"
    PROMPT_MISSING = "prompt_missing"
    UNSUPPORTED_CONTENT = "unsupported_content"
    NO_VERDICT = "no_verdict"
    TEST_QUESTION = "test_question"
    TAINTED = "tainted"
    NOT_SUBMITTED = "not_submitted"
    DELETED = "deleted"
    TOO_FEW_RESPONSES = "too_few_responses"
    TOO_MANY_RESPONSES = "too_many_responses"
    UNEXPECTED_SHAPE = "unexpected_shape"
    # Records taken back
    FORGOTTEN = "forgotten"

    @property
    def sentence(self) -> str:
        """What the reason means, for people."""
        return _SENTENCES[self]


_SENTENCES = {
    Reason.UNKNOWN_FILE_TYPE: "The file's name does not end in one of the types that are read.",
    Reason.UNREADABLE_FILE: "The file cannot be opened as what its name says it is.",
    Reason.EMPTY_FILE: "The file holds no record.",
    Reason.DUPLICATE_FILE: "Another file of the drop has the same bytes and was read instead.",
    Reason.IGNORED_FILE: "The drop's drop.yaml says to leave this file out, or it is a hidden file in an archive.",
    Reason.UNSAFE_MEMBER: "An archive member is a link, encrypted, or has a name that points outside the archive.",
    Reason.TRUNCATED_FILE: "The file ends in the middle of a record or of its compressed stream.",
    Reason.DECOMPRESSION_BOMB: "The file decompresses to implausibly many bytes; the rest of it was not read.",
    Reason.FILE_TOO_LARGE: "The file holds more bytes than are read from one file; the rest of it was not read.",
    Reason.RECORD_TOO_LONG: "The record is longer than the longest that is read.",
    Reason.INVALID_UTF8: "The record holds bytes that are not UTF-8.",
    Reason.INVALID_JSON: "The record is not JSON.",
    Reason.INVALID_CSV: "The row cannot be read as CSV, as where a quote is opened and never closed.",
    Reason.BYTE_ORDER_MARK: "A byte order mark stands in the middle of the file.",
    Reason.NOT_A_NUMBER: "The record holds NaN or an infinity, which are not JSON.",
    Reason.LONE_SURROGATE: "A text holds half of a surrogate pair, which is no character.",
    Reason.NUL_CHARACTER: "A text holds a NUL character.",
    Reason.DUPLICATE_KEY: "An object holds the same key twice, so that readers would disagree about its value.",
    Reason.TOO_DEEP: "The record is nested too deeply.",
    Reason.NOT_AN_OBJECT: "The record is a list, a text or a number, not an object with named fields.",
    Reason.WRONG_CELL_COUNT: "The row has more or fewer cells than the header.",
    Reason.ABOVE_HEADER: "The row stands above the one that names the columns: a title, or names of groups of columns.",
    Reason.REPEATED_HEADER: "The row names the columns once more, as where files were put one behind the other.",
    Reason.FORMULA_CELL: "A cell holds a spreadsheet formula instead of a value.",
    Reason.UNKNOWN_FORMAT: "The fields fit no known export format, and drop.yaml gives no mapping for them.",
    Reason.MISSING_FIELD: "A field the format needs is missing or empty.",
    Reason.WRONG_TYPE: "A field holds another kind of value than the format has there.",
    Reason.UNKNOWN_VERDICT: "The verdict is not a word or number of the format or of drop.yaml's vocabulary.",
    Reason.UNKNOWN_ROLE: "A turn is neither the system's nor the user's nor the assistant's.",
    Reason.ROLE_ORDER: "The turns of user and assistant do not alternate, or do not end as the record's kind demands.",
    Reason.EMPTY_TURN: "A turn of the conversation holds no text.",
    Reason.EMPTY_RESPONSE: "A response holds no text.",
    Reason.UNEQUAL_CONTEXTS: "The two responses do not answer the same conversation.",
    Reason.PROMPT_MISSING: "There is no prompt, or none can be told apart from the responses.",
    Reason.UNSUPPORTED_CONTENT: "A turn holds something other than text: an image, a tool call.",
    Reason.NO_VERDICT: "Nobody judged the record.",
    Reason.TEST_QUESTION: "The record is a test question put in by the platform.",
    Reason.TAINTED: "The platform marked the annotator's work as not to be trusted.",
    Reason.NOT_SUBMITTED: "The verdict is a draft or was discarded.",
    Reason.DELETED: "The source marks the record as deleted, or as not fit for export.",
    Reason.TOO_FEW_RESPONSES: "Fewer than two responses can be compared.",
    Reason.TOO_MANY_RESPONSES: "More responses are ranked than are made into pairs.",
    Reason.UNEXPECTED_SHAPE: "The record is shaped in a way its format's reader did not foresee.",
    Reason.FORGOTTEN: "A tombstone in the ledger takes the record, its text or its annotator back; none of it is kept.",
}
