"""Word lists for reading English aloud: how what is written short is said; ``english.py`` uses them."""

# Read in full wherever they stand; the point belongs to them.
SHORT = {
    "Dr": "Doctor", "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Prof": "Professor", "Gen": "General",
    "Col": "Colonel", "Capt": "Captain", "Lt": "Lieutenant", "Sgt": "Sergeant", "Cpl": "Corporal",
    "Maj": "Major", "Cmdr": "Commander", "Adm": "Admiral", "Rev": "Reverend", "Hon": "Honorable",
    "Gov": "Governor", "Sen": "Senator", "Rep": "Representative", "Pres": "President",
    "Supt": "Superintendent", "Jr": "Junior", "Sr": "Senior", "Esq": "Esquire", "Mt": "Mount", "Ft": "Fort",
    "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Hwy": "Highway", "Inc": "Incorporated",
    "Ltd": "Limited", "Corp": "Corporation", "Co": "Company", "Bros": "Brothers", "Dept": "Department",
    "dept": "department", "Univ": "University", "Assn": "Association", "etc": "et cetera", "vs": "versus",
    "approx": "approximately", "est": "established", "incl": "including", "excl": "excluding",
    "misc": "miscellaneous", "tel": "telephone", "Tel": "telephone", "cf": "compare", "viz": "namely",
    "Jan": "January", "Feb": "February", "Apr": "April", "Aug": "August", "Sept": "September",
    "Sep": "September", "Oct": "October", "Nov": "November", "Dec": "December", "Mon": "Monday",
    "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday", "Thur": "Thursday",
    "Thurs": "Thursday", "Fri": "Friday", "min": "minimum", "max": "maximum",
}  # fmt: skip
AT_TEXT_END = ("etc", "Jr", "Sr", "Inc", "Ltd", "Corp", "Co", "Bros", "Ave", "Blvd", "Rd", "Esq")

# Before a number only: elsewhere they are words.
BEFORE_NUMBER = {
    "No": "number", "no": "number", "Nos": "numbers", "nos": "numbers", "Vol": "volume", "vol": "volume",
    "Fig": "figure", "fig": "figure", "Figs": "figures", "Ch": "chapter", "ch": "chapter", "Sec": "section",
    "Eq": "equation", "p": "page", "pp": "pages", "c": "circa", "ca": "circa", "Mar": "March",
    "Jun": "June", "Jul": "July", "Ext": "extension", "ext": "extension", "Art": "article",
    "art": "article", "b": "born", "d": "died",
}  # fmt: skip

# After a number.
UNITS = {
    "km": "kilometer", "cm": "centimeter", "mm": "millimeter", "µm": "micrometer", "μm": "micrometer",
    "nm": "nanometer",
    "m": "meter", "mi": "mile", "ft": "foot", "yd": "yard", "yds": "yard", "lb": "pound", "lbs": "pound",
    "oz": "ounce", "kg": "kilogram", "g": "gram", "mg": "milligram", "µg": "microgram", "μg": "microgram",
    "mcg": "microgram",
    "l": "liter", "L": "liter", "ml": "milliliter", "mL": "milliliter", "cl": "centiliter",
    "dl": "deciliter", "gal": "gallon", "h": "hour", "hr": "hour", "hrs": "hour", "min": "minute",
    "mins": "minute", "sec": "second", "secs": "second", "ms": "millisecond", "ns": "nanosecond",
    "W": "watt", "kW": "kilowatt", "MW": "megawatt", "GW": "gigawatt", "kWh": "kilowatt hour",
    "MWh": "megawatt hour", "V": "volt", "kV": "kilovolt", "mA": "milliamp", "mAh": "milliamp hour",
    "Ω": "ohm", "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "dB": "decibel",
    "KB": "kilobyte", "kB": "kilobyte", "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte",
    "Mbps": "megabit per second", "Pa": "pascal", "kbps": "kilobit per second",
    "Gbps": "gigabit per second", "kPa": "kilopascal", "hPa": "hectopascal", "psi": "P-S-I",
    "cal": "calorie", "kcal": "kilocalorie", "J": "joule", "kJ": "kilojoule", "ha": "hectare",
    "mph": "mile per hour", "kph": "kilometer per hour", "rpm": "R-P-M", "fps": "frame per second",
    "px": "pixel", "pt": "point", "pts": "point", "yrs": "year", "yr": "year", "N": "newton",
}  # fmt: skip
# After a unit and a slash.
PER = {
    "h": "hour", "hr": "hour", "s": "second", "sec": "second", "min": "minute", "day": "day", "d": "day",
    "week": "week", "wk": "week", "month": "month", "mo": "month", "year": "year", "yr": "year",
    "l": "liter", "L": "liter", "dl": "deciliter", "dL": "deciliter", "ml": "milliliter",
    "mL": "milliliter", "g": "gram", "kg": "kilogram", "m": "meter", "m²": "square meter",
    "m³": "cubic meter", "km": "kilometer", "mi": "mile", "lb": "pound", "oz": "ounce", "gal": "gallon",
    "hour": "hour", "minute": "minute",
}  # fmt: skip
# Plurals that add no s, or not to the first word.
PLURALS = {
    "foot": "feet", "hertz": "hertz", "kilohertz": "kilohertz", "megahertz": "megahertz",
    "gigahertz": "gigahertz", "P-S-I": "P-S-I", "R-P-M": "R-P-M", "mile per hour": "miles per hour",
    "kilometer per hour": "kilometers per hour", "frame per second": "frames per second",
    "kilobit per second": "kilobits per second", "megabit per second": "megabits per second",
    "gigabit per second": "gigabits per second",
}  # fmt: skip

CURRENCIES = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹"}

# What is left of these when all rules are through.
SYMBOLS = {
    "&": " and ", "@": " at ", "=": " equals ", "+": " plus ", "×": " times ", "÷": " divided by ",
    "±": " plus or minus ", "≤": " at most ", "≥": " at least ", "≠": " is not ", "≈": " about ",
    "√": " root of ", "²": " squared ", "³": " cubed ", "%": " percent ", "‰": " per mille ",
    "°": " degrees ", "$": " dollars ", "€": " euros ", "£": " pounds ", "¥": " yen ", "₹": " rupees ",
    "₽": " rubles ", "¢": " cents ", "§": " section ", "^": " to the power of ", "<": " less than ",
    ">": " greater than ", "π": " pi ", "∞": " infinity ", "©": " copyright ", "/": " ", "\\": " ",
    "|": ", ", "~": " ", "_": " ", "*": " ", "#": " ",
}  # fmt: skip
FOR_THE_GRAMMARS = frozenset("$€£¥%/#°")  # these they read themselves

# A Roman numeral after one of these names is an ordinal.
REGNAL = (
    "Henry|Louis|Charles|George|William|Edward|Richard|James|Elizabeth|Mary|Philip|Napoleon|Frederick|Wilhelm|"
    "Francis|Catherine|Peter|Nicholas|Alexander|Ivan|Paul|Pius|Benedict|Leo|Gregory|Clement|Innocent|Urban|"
    "John|Juan|Carlos|Felipe|Alfonso|Ferdinand|Margrethe|Ramses|Ramesses|Cleopatra|Ptolemy|Darius|Xerxes|Otto|"
    "Gustav|Harald|Haakon|Christian|Leopold|Albert|Robert|David|Victor|Umberto|Emmanuel"
)
# After one of these words even a single I, V or X is a number.
NUMBERED = (
    "Chapter|Part|Act|Scene|Book|Volume|Section|Article|Appendix|Figure|Table|Type|Class|Level|Stage|Phase|"
    "Grade|Title|War|Bowl|Century|Episode|Division|Corps|Group|Factor|Schedule|Unit|Canto|Psalm|Rule"
)
# What ends a web address that has no http or www.
TLD = "com|org|net|edu|gov|io|ai|co|uk|de|fr|eu|ca|au|us|info|dev|app|tv|me|ch|at|nl|jp|in|ru|es|it"
