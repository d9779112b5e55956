import evermill


def flow(:
    pass
