from kd_mil.core.suggestions import closest, did_you_mean


def test_a_near_miss_is_recognised():
    assert did_you_mean("tum", ["NORM", "TUM"]) == "known: NORM, TUM; did you mean 'TUM'?"
    assert did_you_mean("xyz", ["NORM", "TUM"]) == "known: NORM, TUM"


def test_of_many_names_the_first_are_listed():
    names = [f"slide_{number}" for number in range(100)]
    ending = "known: slide_0, slide_1, slide_2, ... (100 in all); did you mean 'slide_42'?"
    assert did_you_mean("Slide_42", names) == ending


def test_the_most_similar_come_first():
    assert closest("resnet19", ["vgg", "resnet18", "resnet1999"], count=3) == ["resnet1999", "resnet18"]
    assert closest("resnet19", ["vgg", "resnet18"], similarity=0.9) == []
